//! The `generateName` of what a controller makes.

use api::meta::format::NameRule;

/// The owner's name and a dash; the name alone where there is no room for the dash.
pub(crate) fn generate_name(owner: &str) -> String {
    let prefix = format!("{owner}-");
    if NameRule::Subdomain.check(&prefix, true).is_empty() { prefix } else { owner.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_follows_the_name_where_there_is_room() {
        assert_eq!(generate_name("web"), "web-");
        assert_eq!(generate_name("a.b"), "a.b-");
        let longest = "a".repeat(253);
        assert_eq!(generate_name(&longest), longest);
        assert_eq!(generate_name(&longest[1..]), format!("{}-", &longest[1..]));
    }
}
