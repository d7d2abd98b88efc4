//! Label and field selectors: their text form, `metav1.LabelSelector`, and matching.
//!
//! Parse errors carry upstream's wording, since the API server hands them to the client.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;

/// Requirements of one selector in its text form. Each is looked at for each object of a list, and a URL
/// has room for tens of thousands; nobody writes a hundred.
const REQUIREMENTS_MAX: usize = 1_000;

/// Why a selector could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// Anything that labels can be looked up in.
pub trait LabelSource {
    fn label(&self, key: &str) -> Option<&str>;
}

impl LabelSource for std::collections::BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl LabelSource for std::collections::BTreeMap<Box<str>, Box<str>> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(AsRef::as_ref)
    }
}

impl<T: LabelSource> LabelSource for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: Box<str>,
    pub operator: Operator,
    /// Sorted, so that one of many is found quickly.
    pub values: Vec<Box<str>>,
    /// `a=b` rather than `a in (b)`, for printing.
    exact: bool,
}

impl Requirement {
    #[must_use]
    pub fn matches(&self, labels: &impl LabelSource) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.binary_search_by(|v| (**v).cmp(value)).is_ok();
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            Operator::LessThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        }
    }

    fn new(key: &str, operator: Operator, mut values: Vec<Box<str>>, exact: bool) -> Result<Self, SelectorError> {
        let mut errs = ErrorList::new();
        let root = Path::nil();
        let values_at = root.child("values");
        let why = format::qualified_name(key);
        if !why.is_empty() {
            errs.push(field::invalid(&root.child("key"), key, why.join("; ")));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                let why = "for 'in', 'notin' operators, values set can't be empty";
                errs.push(field::invalid(&values_at, &values, why));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                let why = "values set must be empty for exists and does not exist";
                errs.push(field::invalid(&values_at, &values, why));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let why = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errs.push(field::invalid(&values_at, &values, why));
                }
                for (i, value) in values.iter().enumerate() {
                    if value.parse::<i64>().is_err() {
                        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                        errs.push(field::invalid(&values_at.index(i), &**value, why));
                    }
                }
            }
            Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => {}
        }
        for (i, value) in values.iter().enumerate() {
            let why = format::label_value(value);
            if !why.is_empty() {
                errs.push(field::invalid(&values_at.index(i).key(key), &**value, why.join("; ")));
            }
        }
        if errs.is_empty() {
            values.sort_unstable();
            return Ok(Self { key: key.into(), operator, values, exact });
        }
        Err(SelectorError(field::aggregate(&errs)))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let first = self.values.first().map_or("", |v| v);
        match (self.operator, self.exact) {
            (Operator::In, true) => write!(f, "{key}={first}"),
            (Operator::NotIn, true) => write!(f, "{key}!={first}"),
            (Operator::In, false) => write!(f, "{key} in ({})", self.values.join(",")),
            (Operator::NotIn, false) => write!(f, "{key} notin ({})", self.values.join(",")),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{first}"),
            (Operator::LessThan, _) => write!(f, "{key}<{first}"),
        }
    }
}

/// A conjunction of requirements on labels. The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the query form: `a=b,c in (d,e),!f`.
    ///
    /// # Errors
    /// With upstream's message when the text is malformed.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).requirements()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Exactly these labels, as ReplicationControllers and Services select.
    #[must_use]
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let exact = |(key, value): (&'a String, &'a String)| Requirement {
            key: key.as_str().into(),
            operator: Operator::In,
            values: vec![value.as_str().into()],
            exact: true,
        };
        Self { requirements: labels.into_iter().map(exact).collect(), nothing: false }
    }

    /// The selector of an object's field: none selects nothing, an empty one everything.
    ///
    /// # Errors
    /// When an expression is malformed.
    pub fn from_meta(selector: Option<&metav1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let exact = selector.match_labels.iter().flatten();
        let exact = exact.map(|(key, value)| Requirement::new(key, Operator::In, vec![value.as_str().into()], true));
        let mut result = Self { requirements: exact.collect::<Result<_, _>>()?, nothing: false };
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        field::quote(other)
                    )));
                }
            };
            let values = expression.values.iter().flatten().map(|v| v.as_str().into()).collect();
            result.requirements.push(Requirement::new(&expression.key, operator, values, false)?);
        }
        result.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(result)
    }

    #[must_use]
    pub fn matches(&self, labels: &impl LabelSource) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// A selector as tables and `describe` print it: `<none>` for an empty one.
#[must_use]
pub fn format_label_selector(selector: Option<&metav1::LabelSelector>) -> String {
    match LabelSelector::from_meta(selector) {
        Ok(parsed) if parsed.requirements.is_empty() => "<none>".to_owned(),
        Ok(parsed) => parsed.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Comma,
    Bang,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
    Unknown,
    End,
}

/// `in` and `notin` are words of the grammar only where an operator may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    KeyAndOperator,
    Values,
}

struct Parser<'a> {
    rest: &'a str,
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn scan(&self, context: Context) -> (Token, &'a str, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = text.chars().next() else { return (Token::End, "", "") };
        let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        if special(first) {
            // Single characters that never join with what follows them.
            let end = match first {
                '(' | ')' | ',' => 1,
                _ => text.find(|c: char| !matches!(c, '=' | '!' | '<' | '>')).unwrap_or(text.len()).min(2),
            };
            let longest = &text[..end];
            let token = |literal: &str| match literal {
                "(" => Some(Token::Open),
                ")" => Some(Token::Close),
                "," => Some(Token::Comma),
                "!" => Some(Token::Bang),
                "=" => Some(Token::Equals),
                "==" => Some(Token::DoubleEquals),
                "!=" => Some(Token::NotEquals),
                ">" => Some(Token::Greater),
                "<" => Some(Token::Less),
                _ => None,
            };
            for len in (1..=longest.len()).rev() {
                if let Some(token) = token(&text[..len]) {
                    return (token, &text[..len], &text[len..]);
                }
            }
            return (Token::Unknown, longest, &text[end..]);
        }
        let end = text.find(|c: char| special(c) || space(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let token = match (word, context) {
            ("in", Context::KeyAndOperator) => Token::In,
            ("notin", Context::KeyAndOperator) => Token::NotIn,
            _ => Token::Identifier,
        };
        (token, word, rest)
    }

    fn peek(&self, context: Context) -> (Token, &'a str) {
        let (token, literal, _) = self.scan(context);
        (token, literal)
    }

    fn take(&mut self, context: Context) -> (Token, &'a str) {
        let (token, literal, rest) = self.scan(context);
        self.rest = rest;
        (token, literal)
    }

    fn requirements(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        loop {
            let (token, literal) = self.peek(Context::Values);
            match token {
                Token::End => return Ok(found),
                Token::Identifier | Token::Bang => {
                    let requirement =
                        self.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                    found.push(requirement);
                    not_too_many(found.len())?;
                    let (token, literal) = self.take(Context::Values);
                    match token {
                        Token::End => return Ok(found),
                        Token::Comma => {
                            let (token, literal) = self.peek(Context::Values);
                            if !matches!(token, Token::Identifier | Token::Bang) {
                                return Err(SelectorError(format!(
                                    "found '{literal}', expected: identifier after ','"
                                )));
                            }
                        }
                        _ => return Err(SelectorError(format!("found '{literal}', expected: ',' or 'end of string'"))),
                    }
                }
                _ => {
                    return Err(SelectorError(format!(
                        "found '{literal}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut literal) = self.take(Context::Values);
        let absent = token == Token::Bang;
        if absent {
            (token, literal) = self.take(Context::Values);
        }
        if token != Token::Identifier {
            return Err(SelectorError(format!("found '{literal}', expected: identifier")));
        }
        let key = literal;
        let why = format::qualified_name(key);
        if !why.is_empty() {
            return Err(SelectorError(field::invalid(&Path::nil(), key, why.join("; ")).to_string()));
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new(), false);
        }
        if matches!(self.peek(Context::Values).0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new(), false);
        }
        let (token, literal) = self.take(Context::KeyAndOperator);
        match token {
            Token::In => Requirement::new(key, Operator::In, self.value_list()?, false),
            Token::NotIn => Requirement::new(key, Operator::NotIn, self.value_list()?, false),
            Token::Equals | Token::DoubleEquals => Requirement::new(key, Operator::In, self.one_value()?, true),
            Token::NotEquals => Requirement::new(key, Operator::NotIn, self.one_value()?, true),
            Token::Greater => Requirement::new(key, Operator::GreaterThan, self.one_value()?, true),
            Token::Less => Requirement::new(key, Operator::LessThan, self.one_value()?, true),
            _ => Err(SelectorError(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"))),
        }
    }

    fn one_value(&mut self) -> Result<Vec<Box<str>>, SelectorError> {
        if matches!(self.peek(Context::Values).0, Token::End | Token::Comma) {
            return Ok(vec!["".into()]);
        }
        match self.take(Context::Values) {
            (Token::Identifier, value) => Ok(vec![value.into()]),
            (_, literal) => Err(SelectorError(format!("found '{literal}', expected: identifier"))),
        }
    }

    /// `(a,b,)`: an empty place between commas is an empty value.
    fn value_list(&mut self) -> Result<Vec<Box<str>>, SelectorError> {
        let (token, literal) = self.take(Context::Values);
        if token != Token::Open {
            return Err(SelectorError(format!("found '{literal}' expected: '('")));
        }
        let mut values: BTreeSet<Box<str>> = BTreeSet::new();
        let mut add = |value: &str| {
            values.insert(value.into());
        };
        loop {
            match self.take(Context::Values) {
                (Token::Identifier, value) => add(value),
                (Token::Comma, _) => {
                    add("");
                    continue;
                }
                (Token::Close, _) => {
                    add("");
                    break;
                }
                (_, literal) => {
                    return Err(SelectorError(format!("found '{literal}', expected: ',', ')' or identifier")));
                }
            }
            match self.take(Context::Values) {
                (Token::Comma, _) => {}
                (Token::Close, _) => break,
                (_, literal) => return Err(SelectorError(format!("found '{literal}', expected: ',' or ')'"))),
            }
        }
        Ok(values.into_iter().collect())
    }
}

fn not_too_many(requirements: usize) -> Result<(), SelectorError> {
    if requirements > REQUIREMENTS_MAX {
        return Err(SelectorError(format!("a selector has at most {REQUIREMENTS_MAX} requirements")));
    }
    Ok(())
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: Box<str>,
    pub value: Box<str>,
    pub equal: bool,
}

/// A conjunction of conditions on the selectable fields of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads `status.phase=Running,metadata.name!=x`; a backslash protects `,`, `=` and itself.
    ///
    /// # Errors
    /// With upstream's message when a term has no operator or an escape is unknown.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, operator, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let value = unescape(value)?;
            not_too_many(requirements.len() + 1)?;
            requirements.push(FieldRequirement { field: field.into(), value: value.into(), equal: operator != "!=" });
        }
        Ok(Self { requirements })
    }

    /// `value` gives the value of a selectable field of the object.
    pub fn matches<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements.iter().all(|r| (value(&r.field).unwrap_or("") == &*r.value) == r.equal)
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that `field` must have, when the selector fixes one.
    #[must_use]
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && *r.field == *field).map(|r| &*r.value)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if r.equal { "=" } else { "!=" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", r.field)?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    (0..term.len()).filter(|i| term.is_char_boundary(*i)).find_map(|i| {
        let operator = ["!=", "==", "="].into_iter().find(|op| term[i..].starts_with(op))?;
        Some((&term[..i], operator, &term[i + operator.len()..]))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: \\{next}")));
                }
                None => return Err(SelectorError("invalid field selector: unfinished escape sequence".to_owned())),
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {c}")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
