//! Which objects of a collection a list or watch is about.
//!
//! A selector may have a thousand requirements and is asked for each object. They are put together by what
//! they ask about, so that an object costs as many lookups as it has labels, or as there are keys if those
//! are fewer.

use api::object::ObjectIndex;
use api::selector::{FieldRequirement, LabelSelector, Operator, Requirement};

use super::context::Context;
use super::event_form;
use super::options::ListOptions;
use crate::error::ApiError;
use crate::registry::field_of;

/// Namespace, label selector and field selector of a request.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Empty for all namespaces.
    pub(crate) namespace: String,
    labels: Conditions,
    fields: Conditions,
}

impl Selection {
    pub(crate) fn new(cx: &Context<'_>, options: &ListOptions) -> Result<Self, ApiError> {
        // The fields of the group that was asked; those of the stored form have the index.
        let known = api::kinds::rules(cx.resource.row.group, cx.kind()).traits().fields;
        let mut fields = options.fields.clone();
        for requirement in &mut fields.requirements {
            let field = &*requirement.field;
            let common = matches!(field, "metadata.name" | "metadata.namespace");
            if !common && !known.iter().any(|f| f.name == field) {
                return Err(ApiError::BadRequest(unknown_field(cx, field)));
            }
            if cx.resource.row.stored_in.is_some() {
                requirement.field = event_form::core_field(field).into();
            }
        }
        // The old paths of watches name the one object.
        if !cx.info.name.is_empty() {
            let value = cx.info.name.as_str().into();
            fields.requirements.push(FieldRequirement { field: "metadata.name".into(), value, equal: true });
        }
        Ok(Self {
            namespace: cx.namespace().to_owned(),
            labels: Conditions::of_labels(&options.labels),
            fields: Conditions::of_fields(&fields.requirements),
        })
    }

    #[cfg(test)]
    pub(crate) fn of_labels(selector: &LabelSelector) -> Self {
        let labels = Conditions::of_labels(selector);
        Self { namespace: String::new(), labels, fields: Conditions::default() }
    }

    /// Whether the whole collection (of the namespace) is meant.
    pub(crate) fn is_everything(&self) -> bool {
        self.conditions() == 0
    }

    /// How many keys and fields are looked up for an object at the most.
    pub(crate) fn conditions(&self) -> usize {
        self.labels.by_key.len() + self.fields.by_key.len()
    }

    /// The same for one object, which costs something also without any.
    pub(crate) fn lookups(&self, index: &ObjectIndex) -> usize {
        1 + self.labels.by_key.len().min(index.labels.len()) + self.fields.by_key.len()
    }

    /// The one name that is selected, if the selector fixes it.
    pub(crate) fn name(&self) -> Option<&str> {
        match self.fields.get("metadata.name")?.one_of.as_deref()? {
            [name] => Some(name),
            _ => None,
        }
    }

    pub(crate) fn prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }

    pub(crate) fn matches(&self, index: &ObjectIndex) -> bool {
        (self.namespace.is_empty() || *index.key.namespace == *self.namespace)
            && self.labels.match_labels(index)
            && self.fields.by_key.iter().all(|(field, c)| c.holds(Some(field_of(index, field).unwrap_or(""))))
    }
}

/// The requirements of a selector by what they ask about, sorted by it.
#[derive(Debug, Default)]
struct Conditions {
    by_key: Box<[(Box<str>, Condition)]>,
    /// Of them, those that need a value to be there.
    needed: usize,
}

/// All that a selector requires of one label or field.
#[derive(Debug, Default)]
struct Condition {
    needed: bool,
    forbidden: bool,
    /// Sorted, as the next.
    one_of: Option<Vec<Box<str>>>,
    none_of: Vec<Box<str>>,
    above: Option<i64>,
    below: Option<i64>,
}

impl Conditions {
    fn of_labels(selector: &LabelSelector) -> Self {
        Self::new(selector.requirements.iter().map(|requirement| (&requirement.key, requirement)), Condition::label)
    }

    fn of_fields(requirements: &[FieldRequirement]) -> Self {
        Self::new(requirements.iter().map(|requirement| (&requirement.field, requirement)), Condition::field)
    }

    fn new<'r, R: 'r>(
        requirements: impl Iterator<Item = (&'r Box<str>, &'r R)>,
        require: fn(&mut Condition, &R),
    ) -> Self {
        let mut sorted: Vec<_> = requirements.collect();
        sorted.sort_by_key(|(key, _)| *key);
        let mut by_key: Vec<(Box<str>, Condition)> = Vec::new();
        for (key, requirement) in sorted {
            if by_key.last().is_none_or(|(last, _)| last != key) {
                by_key.push((key.clone(), Condition::default()));
            }
            if let Some((_, condition)) = by_key.last_mut() {
                require(condition, requirement);
            }
        }
        for (_, condition) in &mut by_key {
            condition.none_of.sort_unstable();
        }
        let needed = by_key.iter().filter(|(_, condition)| condition.needed).count();
        Self { by_key: by_key.into(), needed }
    }

    fn get(&self, key: &str) -> Option<&Condition> {
        let place = self.by_key.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.by_key[place].1)
    }

    fn match_labels(&self, index: &ObjectIndex) -> bool {
        let labels = &index.labels;
        if self.by_key.len() <= labels.len() {
            return self.by_key.iter().all(|(key, c)| c.holds(labels.get(key).map(AsRef::as_ref)));
        }
        // What is not among the labels holds unless it is needed.
        let mut there = 0;
        for (key, value) in labels {
            if let Some(condition) = self.get(key) {
                if !condition.holds(Some(value)) {
                    return false;
                }
                there += usize::from(condition.needed);
            }
        }
        there == self.needed
    }
}

impl Condition {
    fn label(&mut self, requirement: &Requirement) {
        let bound = || requirement.values.first().and_then(|value| value.parse::<i64>().ok());
        match requirement.operator {
            Operator::In => self.require_one_of(&requirement.values),
            Operator::NotIn => self.none_of.extend_from_slice(&requirement.values),
            Operator::Exists => self.needed = true,
            Operator::DoesNotExist => self.forbidden = true,
            Operator::GreaterThan => {
                self.needed = true;
                self.above = bound().max(self.above);
                self.forbidden |= bound().is_none();
            }
            Operator::LessThan => {
                self.needed = true;
                self.below = bound().into_iter().chain(self.below).min();
                self.forbidden |= bound().is_none();
            }
        }
    }

    fn field(&mut self, requirement: &FieldRequirement) {
        let value = std::slice::from_ref(&requirement.value);
        if requirement.equal { self.require_one_of(value) } else { self.none_of.extend_from_slice(value) }
    }

    fn require_one_of(&mut self, values: &[Box<str>]) {
        self.needed = true;
        match &mut self.one_of {
            Some(known) => known.retain(|value| values.binary_search(value).is_ok()),
            None => self.one_of = Some(values.to_vec()),
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return !self.needed };
        let listed = |values: &[Box<str>]| values.binary_search_by(|listed| (**listed).cmp(value)).is_ok();
        if self.forbidden || listed(&self.none_of) || self.one_of.as_deref().is_some_and(|values| !listed(values)) {
            return false;
        }
        if self.above.is_none() && self.below.is_none() {
            return true;
        }
        let within = |n: i64| self.above.is_none_or(|bound| n > bound) && self.below.is_none_or(|bound| n < bound);
        value.parse().is_ok_and(within)
    }
}

fn unknown_field(cx: &Context<'_>, field: &str) -> String {
    if cx.resource.rules.traits().fields.is_empty() {
        return format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
    }
    format!("field label not supported: {field}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers on each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    fn requirement(numbers: &mut Numbers) -> String {
        let key = format!("k{}", numbers.below(6));
        let (one, two) = (numbers.below(4), numbers.below(4));
        match numbers.below(8) {
            0 => key,
            1 => format!("!{key}"),
            2 => format!("{key}={one}"),
            3 => format!("{key} in ({one},{two},x)"),
            4 => format!("{key} notin ({one},{two})"),
            5 => format!("{key}>{one}"),
            6 => format!("{key}<{one}"),
            _ => format!("{key}!={one}"),
        }
    }

    #[test]
    fn conditions_match_as_the_requirements_one_by_one() {
        let mut numbers = Numbers(7);
        let mut matched = 0;
        for _ in 0..3_000 {
            let text: Vec<_> = (0..1 + numbers.below(7)).map(|_| requirement(&mut numbers)).collect();
            let selector = LabelSelector::parse(&text.join(",")).unwrap();
            let conditions = Conditions::of_labels(&selector);
            for _ in 0..20 {
                let value = |numbers: &mut Numbers| numbers.below(5).to_string().replace('4', "x");
                let count = numbers.below(9);
                let label = |_| (format!("k{}", numbers.below(8)).into(), value(&mut numbers).into());
                let labels = (0..count).map(label).collect();
                let index = ObjectIndex { labels, ..ObjectIndex::default() };
                let expected = selector.matches(&index.labels);
                assert_eq!(conditions.match_labels(&index), expected, "{selector} of {:?}", index.labels);
                matched += usize::from(expected);
            }
        }
        assert!((5_000..55_000).contains(&matched), "{matched} matched");
    }

    #[test]
    fn a_long_selector_costs_no_more_than_the_labels_of_the_object() {
        let text: Vec<_> = (0..495).map(|i| format!("k{i}!=a,k{i}!=b")).collect();
        let selection = Selection::of_labels(&LabelSelector::parse(&text.join(",")).unwrap());
        let label = |i: usize| (format!("k{i}").into(), "c".into());
        let index = ObjectIndex { labels: (0..60).map(label).collect(), ..ObjectIndex::default() };
        assert!(selection.matches(&index));
        assert_eq!((selection.conditions(), selection.lookups(&index)), (495, 61));
    }

    #[test]
    fn a_name_is_fixed_by_one_value() {
        for (text, expected) in
            [("metadata.name=a", Some("a")), ("metadata.name!=a", None), ("metadata.name=a,metadata.name=b", None)]
        {
            let fields = Conditions::of_fields(&api::selector::FieldSelector::parse(text).unwrap().requirements);
            let selection = Selection { namespace: String::new(), labels: Conditions::default(), fields };
            assert_eq!(selection.name(), expected, "{text}");
        }
    }
}
