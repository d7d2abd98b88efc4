//! Links in what a proxied server says: those that name a path of its own get the proxy's path in
//! front. A small reader of HTML finds them; everything else stays byte for byte as it is.

/// What must be known to put links right.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The path of the proxy, up to and with `/proxy`.
    pub(super) prefix: String,
    /// Host and port of the server behind.
    pub(super) backend: String,
    /// The host by which the client knows the proxy.
    pub(super) asked: String,
}

/// A link in its parts; the path keeps its escapes.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    /// From the `?` or `#` on.
    tail: &'a str,
}

impl Links {
    /// The link that leads through the proxy; `None` if it is right as it is: relative, or to
    /// somewhere else.
    pub(super) fn through(&self, link: &str) -> Option<String> {
        let parts = split(link)?;
        let elsewhere = !parts.host.is_empty() && parts.host != self.backend && parts.host != self.asked;
        if elsewhere || !parts.path.starts_with('/') {
            return None;
        }
        let kept = if !parts.host.is_empty() && parts.host == self.asked {
            let colon = if parts.scheme.is_empty() { "" } else { ":" };
            format!("{}{colon}//{}", parts.scheme, parts.host)
        } else {
            String::new()
        };
        let path = if parts.path.starts_with(&self.prefix) {
            parts.path.to_owned()
        } else {
            cleaned(&format!("{}{}", self.prefix, parts.path))
        };
        Some(format!("{kept}{path}{}", parts.tail))
    }

    /// A page with its links put right; `None` where it would be longer than the limit.
    pub(super) fn in_page(&self, page: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(page.len() + 512);
        let mut kept = 0;
        for value in link_values(page) {
            let new = std::str::from_utf8(&page[value.clone()]).ok().and_then(|link| self.through(link));
            if let Some(new) = new {
                out.extend_from_slice(&page[kept..value.start]);
                out.extend_from_slice(new.as_bytes());
                kept = value.end;
                if out.len() > limit {
                    return None;
                }
            }
        }
        out.extend_from_slice(&page[kept..]);
        (out.len() <= limit).then_some(out)
    }
}

/// `None` for what has no path, such as `mailto:ann`.
fn split(link: &str) -> Option<Parts<'_>> {
    let colon = link.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'));
    let (scheme, rest) = match colon {
        Some(end) if end > 0 && link[end..].starts_with(':') => (&link[..end], &link[end + 1..]),
        _ => ("", link),
    };
    let (host, rest) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None if scheme.is_empty() => ("", rest),
        None => return None,
    };
    let (path, tail) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    Some(Parts { scheme, host, path, tail })
}

/// The absolute path without empty, `.` and `..` segments; a slash at its end stays.
fn cleaned(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Whether an attribute of an element holds a link, by the lists of HTML 4 and 5.
fn holds_link(element: &str, attribute: &str) -> bool {
    let attributes: &[&str] = match element {
        "a" | "area" | "base" | "link" => &["href"],
        "applet" => &["codebase"],
        "audio" | "embed" | "script" | "source" => &["src"],
        "blockquote" | "del" | "ins" | "q" => &["cite"],
        "body" => &["background"],
        "button" => &["formaction"],
        "command" => &["icon"],
        "form" => &["action"],
        "frame" | "iframe" => &["longdesc", "src"],
        "head" => &["profile"],
        "html" => &["manifest"],
        "img" => &["longdesc", "src", "usemap"],
        "input" => &["src", "usemap", "formaction"],
        "object" => &["classid", "codebase", "data", "usemap"],
        "video" => &["poster", "src"],
        _ => &[],
    };
    attributes.contains(&attribute)
}

/// Elements whose content is text, whatever it looks like.
const RAW_TEXT: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

type Span = std::ops::Range<usize>;

/// Where the values of link attributes lie in a page, without their quotes.
fn link_values(page: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = find(page, at, b"<") {
        let rest = &page[open..];
        if rest.starts_with(b"<!--") {
            at = find(page, open + 4, b"-->").map_or(page.len(), |i| i + 3);
        } else if rest.len() > 1 && matches!(rest[1], b'!' | b'?' | b'/') {
            at = find(page, open + 2, b">").map_or(page.len(), |i| i + 1);
        } else if rest.len() > 1 && rest[1].is_ascii_alphabetic() {
            at = read_element(page, open + 1, &mut found);
        } else {
            at = open + 1;
        }
    }
    found
}

/// Reads a start tag whose name begins at `start`, and the content if it is raw text. Returns where
/// to go on.
fn read_element(page: &[u8], start: usize, found: &mut Vec<Span>) -> usize {
    let name_end = until(page, start, |b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
    let element = String::from_utf8_lossy(&page[start..name_end]).to_ascii_lowercase();
    let mut at = name_end;
    loop {
        at = until(page, at, |b| !b.is_ascii_whitespace() && b != b'/');
        if at >= page.len() {
            return at;
        }
        if page[at] == b'>' {
            break;
        }
        let (attribute, value, next) = read_attribute(page, at);
        if let Some(value) = value.filter(|_| holds_link(&element, &attribute)) {
            found.push(value);
        }
        at = next;
    }
    if RAW_TEXT.contains(&element.as_str()) { end_of_raw_text(page, at + 1, &element) } else { at + 1 }
}

/// The attribute's name in lower case, its value, and where the next one may begin.
fn read_attribute(page: &[u8], start: usize) -> (String, Option<Span>, usize) {
    // A name may begin with a `=`.
    let name_end = until(page, start + 1, |b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'='));
    let name = String::from_utf8_lossy(&page[start..name_end]).to_ascii_lowercase();
    let equals = until(page, name_end, |b| !b.is_ascii_whitespace());
    if page.get(equals) != Some(&b'=') {
        return (name, None, name_end);
    }
    let value = until(page, equals + 1, |b| !b.is_ascii_whitespace());
    match page.get(value) {
        Some(&quote @ (b'"' | b'\'')) => {
            let end = until(page, value + 1, |b| b == quote);
            // A quote that nothing closes makes no tag.
            let whole = end < page.len();
            (name, whole.then_some(value + 1..end), (end + 1).min(page.len()))
        }
        Some(b'>') | None => (name, None, value),
        Some(_) => {
            let end = until(page, value, |b| b.is_ascii_whitespace() || b == b'>');
            (name, Some(value..end), end)
        }
    }
}

/// The position of the end tag that closes raw text.
fn end_of_raw_text(page: &[u8], start: usize, element: &str) -> usize {
    let mut at = start;
    while let Some(close) = find(page, at, b"</") {
        let name = page.get(close + 2..close + 2 + element.len());
        if name.is_some_and(|n| n.eq_ignore_ascii_case(element.as_bytes())) {
            return close;
        }
        at = close + 2;
    }
    page.len()
}

fn find(page: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let rest = page.get(from..)?;
    rest.windows(wanted.len()).position(|window| window == wanted).map(|i| from + i)
}

/// The first position at or after `from` whose byte fits, or the page's end.
fn until(page: &[u8], from: usize, fits: impl Fn(u8) -> bool) -> usize {
    page.iter().skip(from).position(|b| fits(*b)).map_or(page.len(), |i| from + i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/api/p/proxy".into(), backend: "10.0.0.1:80".into(), asked: "pi:6443".into() }
    }

    #[test]
    fn absolute_links_to_the_same_server_go_through_the_proxy() {
        #[track_caller]
        fn check(link: &str, expected: &str) {
            assert_eq!(links().through(link).as_deref().unwrap_or(link), expected, "{link}");
        }
        check("/a", "/api/p/proxy/a");
        check("/", "/api/p/proxy/");
        check("/a/?x=/b#c", "/api/p/proxy/a/?x=/b#c");
        check("/a//b/../c", "/api/p/proxy/a/c");
        check("http://10.0.0.1:80/a", "/api/p/proxy/a");
        check("//10.0.0.1:80/a", "/api/p/proxy/a");
        check("https://pi:6443/a", "https://pi:6443/api/p/proxy/a");
        check("/api/p/proxy/a", "/api/p/proxy/a");
        for same in ["a", "../a", "?x", "#x", "", "http://elsewhere/a", "mailto:ann@x/y", "http://10.0.0.1:80", ":/a"] {
            check(same, same);
        }
    }

    #[test]
    fn pages_are_changed_in_their_links_alone() {
        #[track_caller]
        fn check(page: &str, expected: &str) {
            assert_eq!(String::from_utf8(links().in_page(page.as_bytes(), 1024).unwrap()).unwrap(), expected);
        }
        check("<a href=\"/rewriteme\">test</a>", "<a href=\"/api/p/proxy/rewriteme\">test</a>");
        check("<A  HREF = '/x'  id=y>", "<A  HREF = '/api/p/proxy/x'  id=y>");
        check("<img alt=x src=/x><br/><p>", "<img alt=x src=/api/p/proxy/x><br/><p>");
        check("<form action=/x method=post>", "<form action=/api/p/proxy/x method=post>");
        check("<video src=\"/v\" poster=\"/p\"/>", "<video src=\"/api/p/proxy/v\" poster=\"/api/p/proxy/p\"/>");
        check("<script src=\"/s.js\">a('<a href=\"/x\">')</script><a href=/x>", {
            "<script src=\"/api/p/proxy/s.js\">a('<a href=\"/x\">')</script><a href=/api/p/proxy/x>"
        });
        check("<!-- <a href=\"/x\"> --><!DOCTYPE html>", "<!-- <a href=\"/x\"> --><!DOCTYPE html>");
        for same in [
            "a < b <a id=/x href='y'>",
            "<a href",
            "<a href=",
            "<a href=\"/x",
            "<p href=/x>",
            "<",
            "</a href=/x>",
            "<title><a href=/x>",
        ] {
            check(same, same);
        }
    }
}
