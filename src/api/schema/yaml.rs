//! YAML bodies: turned into JSON as upstream does before it decodes them.
//!
//! Only the first document of a body counts, as with upstream. Nesting is bounded by the parser's
//! options, what a body may come to by the same [`Budget`] as JSON (an alias is charged for
//! the whole value that it stands for), and how much of it aliases may bring by upstream's ratio.
//! Reading YAML takes longer than anything that is done with it, so the nodes are bounded as well.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, StructureStyle, Tag};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::cost::{self, Budget};
use super::decode::{Decoded, check_value};
use super::error::{DecodeError, FieldIssue};
use super::issues::Issues;
use super::table::TypeId;
use super::yaml_scalar::resolve;

/// Levels of flow and of block collections; JSON bodies end at 128 as well.
const MAX_DEPTH: usize = 128;

/// What the nodes of one document may weigh: the parser spends half a microsecond to one on each. The definition
/// of a custom resource of 1 MB has some 50,000 nodes, and so has a ConfigMap of 25,000 keys.
const MAX_WEIGHT: usize = 120_000;
/// A flow collection is made of several tokens.
const FLOW: usize = 1;
/// The parser looks at every level around a token: each so many of them cost as much as a token itself.
const LEVELS: usize = 64;
/// An anchor is a token of its own, and kept by its name.
const ANCHOR: usize = 2;
const TAG: usize = 1;

/// From so many decoded nodes, and so many of them brought by aliases, upstream's library looks at their ratio.
const RATIO_FROM: usize = 1_000;
const ALIASED_FROM: usize = 100;
/// Up to so many nodes 99 of 100 may come from aliases; the share then falls evenly to a tenth.
const RATIO_LOW: usize = 400_000;
const RATIO_HIGH: usize = 4_000_000;

/// A YAML body in its JSON form.
#[derive(Debug)]
pub struct Yaml {
    pub value: Value,
    /// Keys that stand twice.
    duplicates: Vec<FieldIssue>,
}

/// Reads a YAML body.
///
/// # Errors
/// When the bytes are no YAML, or stand for more than a body may hold.
pub fn read_yaml(bytes: &[u8]) -> Result<Yaml, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| fault(&format!("invalid UTF-8: {error}")))?;
    let mut options = Options::default();
    options.set_emit_comments(false);
    // As libyaml: the last block scalar has the line break that the body has, and no other.
    options.block_scalar_eof_without_line_feed = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        budget: Budget::new(),
        weight: 0,
        decoded: 1,
        aliased: 0,
        duplicates: Issues::new(),
        path: Vec::new(),
    };
    let value = reader.document()?;
    Ok(Yaml { value, duplicates: reader.duplicates.into_list() })
}

/// Checks a YAML body against its type.
///
/// # Errors
/// When it holds a value of a wrong type.
pub fn check_yaml(yaml: Yaml, ty: TypeId) -> Result<Decoded, DecodeError> {
    let mut decoded = check_value(yaml.value, ty)?;
    decoded.issues.splice(0..0, yaml.duplicates);
    Ok(decoded)
}

/// Decodes a YAML body.
///
/// # Errors
/// When the bytes are no YAML or hold a value of a wrong type.
pub fn decode_yaml(bytes: &[u8], ty: TypeId) -> Result<Decoded, DecodeError> {
    check_yaml(read_yaml(bytes)?, ty)
}

fn fault(text: &str) -> DecodeError {
    DecodeError::Yaml(text.to_owned())
}

/// One step from the top of the body to the value at hand.
enum Step {
    Key(String),
    Index(usize),
}

/// Builds the JSON form of a document: keys become strings, whole floats integers, `<<` is merged.
struct Reader<'y> {
    parser: Parser<'y, StrInput<'y>>,
    /// The values that aliases may name, by the parser's number, and the nodes that decode to them.
    anchors: HashMap<usize, (Value, usize)>,
    budget: Budget,
    /// What the nodes weighed so far.
    weight: usize,
    /// The nodes that upstream's library would have decoded so far, with the document itself, and those of
    /// them that aliases brought.
    decoded: usize,
    aliased: usize,
    duplicates: Issues,
    path: Vec<Step>,
}

impl<'y> Reader<'y> {
    fn next(&mut self) -> Result<(Event<'y>, Span), DecodeError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(fault(&format!("line {}: {}", error.marker().line(), error.info()))),
            None => Err(fault("unexpected end of the document")),
        }
    }

    fn charge(&self, cost: usize) -> Result<(), DecodeError> {
        self.budget.take(cost).map_err(|_| DecodeError::TooLarge { limit: self.budget.limit(), place: String::new() })
    }

    /// The first document; nothing is null.
    fn document(&mut self) -> Result<Value, DecodeError> {
        loop {
            match self.next()?.0 {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => return Ok(Value::Null),
                event => return self.node(event),
            }
        }
    }

    /// Counts a node that was read.
    fn weigh(&mut self, event: &Event<'y>) -> Result<(), DecodeError> {
        let (own, anchor, tag) = match event {
            Event::Scalar(_, _, anchor, tag) => (1, *anchor, tag.is_some()),
            Event::SequenceStart(style, anchor, tag) | Event::MappingStart(style, anchor, tag) => {
                (if *style == StructureStyle::Flow { 1 + FLOW } else { 1 }, *anchor, tag.is_some())
            }
            _ => (1, 0, false),
        };
        let weight = own + ANCHOR * usize::from(anchor != 0) + TAG * usize::from(tag);
        self.weight += weight * (1 + self.path.len() / LEVELS);
        self.decoded += 1;
        if self.weight > MAX_WEIGHT { Err(DecodeError::TooManyNodes { limit: MAX_WEIGHT }) } else { Ok(()) }
    }

    /// Refuses a document most of which comes from aliases, by upstream's measure.
    fn check_aliases(&self) -> Result<(), DecodeError> {
        let (decoded, aliased) = (self.decoded, self.aliased);
        let beyond = decoded.clamp(RATIO_LOW, RATIO_HIGH) - RATIO_LOW;
        // In hundredths: 99 less up to 89.
        let allowed = 99 * (RATIO_HIGH - RATIO_LOW) - 89 * beyond;
        let excessive = aliased * 100 * (RATIO_HIGH - RATIO_LOW) > allowed * decoded;
        if aliased > ALIASED_FROM && decoded > RATIO_FROM && excessive {
            return Err(fault("document contains excessive aliasing"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'y>) -> Result<Value, DecodeError> {
        self.weigh(&event)?;
        let before = self.decoded;
        let (anchor, value) = match event {
            Event::Alias(id) => return self.alias(id),
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(cost::text(text.len()))?;
                (anchor, scalar(text, style, tag.as_deref())?)
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.list()?),
            Event::MappingStart(_, anchor, _) => (anchor, self.map()?),
            other => return Err(fault(&format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            self.charge(cost::of_value(&value))?;
            self.anchors.insert(anchor, (value.clone(), self.decoded - before + 1));
        }
        Ok(value)
    }

    fn alias(&mut self, id: usize) -> Result<Value, DecodeError> {
        let Some((named, nodes)) = self.anchors.get(&id) else { return Err(fault("anchor value contains itself")) };
        self.charge(cost::of_value(named))?;
        let value = named.clone();
        self.decoded += nodes;
        self.aliased += nodes;
        self.check_aliases()?;
        Ok(value)
    }

    fn list(&mut self) -> Result<Value, DecodeError> {
        let mut list = Vec::new();
        loop {
            let event = self.next()?.0;
            if event == Event::SequenceEnd {
                return Ok(list.into());
            }
            self.charge(cost::element(list.len()))?;
            self.path.push(Step::Index(list.len()));
            list.push(self.node(event)?);
            self.path.pop();
        }
    }

    fn map(&mut self) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?.0;
            if event == Event::MappingEnd {
                break;
            }
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = key(self.node(event)?)?;
            self.charge(cost::text(key.len()) + cost::member(object.len()))?;
            self.path.push(Step::Key(key));
            let event = self.next()?.0;
            let value = self.node(event)?;
            let Some(Step::Key(key)) = self.path.pop() else { return Err(fault("invariant: a key was pushed")) };
            if merges {
                merged.push(value);
                continue;
            }
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    if !self.duplicates.is_full() {
                        let path = self.path_to(place.key());
                        self.duplicates.note(FieldIssue::Duplicate { path });
                    }
                    place.insert(value);
                }
            }
        }
        for source in merged {
            merge(&mut object, source)?;
        }
        Ok(object.into())
    }

    fn path_to(&self, member: &str) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => {
                    path.push_str(key);
                    path.push('.');
                }
                Step::Index(index) => {
                    if path.ends_with('.') {
                        path.pop();
                    }
                    path.push_str(&format!("[{index}]."));
                }
            }
        }
        path + member
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, DecodeError> {
    let kind = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:"));
    match kind.as_deref() {
        Some("binary") => {
            let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let bytes = STANDARD.decode(clean).map_err(|_| fault("!!binary value contains invalid base64 data"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned().into())
        }
        Some("null" | "bool" | "int" | "float") => Ok(resolve(&text)),
        Some(_) => Ok(text.into_owned().into()),
        None if tag.is_some() || style != ScalarStyle::Plain => Ok(text.into_owned().into()),
        None => Ok(resolve(&text)),
    }
}

/// A key as JSON writes it.
fn key(value: Value) -> Result<String, DecodeError> {
    match value {
        Value::String(key) => Ok(key),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let mut shown = value.to_string();
            shown.truncate((0..=30.min(shown.len())).rev().find(|i| shown.is_char_boundary(*i)).unwrap_or(0));
            Err(fault(&format!("unsupported map key: {shown}")))
        }
    }
}

/// Adds what a merge key brings; keys that are there win.
fn merge(object: &mut Map<String, Value>, source: Value) -> Result<(), DecodeError> {
    match source {
        Value::Object(source) => {
            for (key, value) in source {
                object.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(sources) if sources.iter().all(Value::is_object) => {
            sources.into_iter().try_for_each(|source| merge(object, source))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(fault("map merge requires map or sequence of maps as the value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a table of json! values reads better without references")]
    fn check(text: &str, expected: Value) {
        assert_eq!(read_yaml(text.as_bytes()).unwrap().value, expected, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = read_yaml(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn documents_take_their_json_form() {
        check("", json!(null));
        check("a: 1\n---\nb: 2\n", json!({"a": 1}));
        check("a: yes\nb: 'yes'\nc: \"1\"\nd: |\n  1\n", json!({"a": true, "b": "yes", "c": "1", "d": "1\n"}));
        check("d: |\n  as the body ends", json!({"d": "as the body ends"}));
        check("{1: a, 1.5: b, true: c, x: ~}", json!({"1": "a", "1.5": "b", "true": "c", "x": null}));
        check("a: !!str 1\nb: !!int '2'\nc: !!binary aGk=\nd: !x 3\ne: ! 4", {
            json!({"a": "1", "b": 2, "c": "hi", "d": "3", "e": "4"})
        });
        check("- &a {x: 1}\n- *a\n- <<: *a\n  w: 2\n- <<: [{x: 3, z: 4}, *a]", {
            json!([{"x": 1}, {"x": 1}, {"x": 1, "w": 2}, {"x": 3, "z": 4}])
        });
        check("# comment\na: # another\n  - b # c\n", json!({"a": ["b"]}));
    }

    #[test]
    fn keys_that_stand_twice_are_named_by_their_path() {
        let yaml = read_yaml(b"a:\n- {b: 1, b: 2}\na: 3\n").unwrap();
        let paths: Vec<&str> = yaml.duplicates.iter().map(FieldIssue::path).collect();
        assert_eq!(paths, ["a[0].b", "a"]);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        refused("a: *nothing", "line 1");
        refused("&a [*a]", "anchor value contains itself");
        refused("a: b: c", "line 1");
        refused("{[1]: 2}", "unsupported map key: [1]");
        refused("<<: 1", "map merge requires map or sequence of maps as the value");
        refused(&"[".repeat(200), "line 1");
        refused(&"- ".repeat(200), "line 1");
    }

    fn laughs(levels: usize) -> String {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..levels {
            text.push_str(&format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(10)));
        }
        text
    }

    #[test]
    fn aliases_are_charged_for_what_they_stand_for() {
        let text = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(900));
        assert!(matches!(read_yaml(text.as_bytes()), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn aliases_may_bring_as_much_of_a_document_as_upstream_lets_them() {
        assert!(read_yaml(laughs(3).as_bytes()).is_ok());
        refused(&laughs(4), "yaml: document contains excessive aliasing");
        let yaml = |decoded, aliased| {
            let parser = Parser::new_from_str_with_options("", Options::default());
            let (anchors, budget, duplicates) = (HashMap::new(), Budget::new(), Issues::new());
            Reader { parser, anchors, budget, weight: 0, decoded, aliased, duplicates, path: Vec::new() }
        };
        for (decoded, aliased, is_fine) in [
            (1_000, 1_000, true),
            (1_001, 100, true),
            (1_001, 1_000, false),
            (400_000, 396_000, true),
            (400_000, 396_001, false),
            (2_200_000, 1_199_000, true),
            (2_200_000, 1_199_001, false),
            (8_000_000, 800_000, true),
            (8_000_000, 800_001, false),
        ] {
            assert_eq!(yaml(decoded, aliased).check_aliases().is_ok(), is_fine, "{aliased} of {decoded}");
        }
    }

    #[test]
    fn the_nodes_of_a_document_are_bounded_by_what_they_cost_the_parser() {
        #[track_caller]
        fn check(one: &str, fits: usize) {
            let read = |count: usize| read_yaml(one.repeat(count).as_bytes()).map(drop);
            assert_eq!(read(fits), Ok(()), "{one:?}");
            assert_eq!(read(fits + 2), Err(DecodeError::TooManyNodes { limit: MAX_WEIGHT }), "{one:?}");
        }
        check("k: 1\n", MAX_WEIGHT / 2 - 1);
        check("- 1\n", MAX_WEIGHT - 1);
        check("- &a 1\n", (MAX_WEIGHT - 1) / 3);
        check("- !!str a\n", (MAX_WEIGHT - 1) / 2);
        check("- {}\n", (MAX_WEIGHT - 1) / 2);
        let deep = |count: usize| read_yaml(format!("{}{}", "[".repeat(100), "1, ".repeat(count)).as_bytes());
        assert!(matches!(deep(MAX_WEIGHT / 2), Err(DecodeError::TooManyNodes { .. })));
    }

    #[test]
    fn what_people_write_is_read() {
        let keys: String = (0..30_000).map(|i| format!("  key-{i}: some value\n")).collect();
        let map = read_yaml(format!("metadata: {{name: a}}\ndata:\n{keys}").as_bytes()).unwrap();
        assert_eq!(map.value["data"].as_object().map(Map::len), Some(30_000));
        let field = "                    type: object\n                    description: |-\n                      \
                     Some words about this field, long enough to look like those of a definition.\n";
        let fields: String = (0..8_000).map(|i| format!("                  field{i}:\n{field}")).collect();
        let text = format!("spec:\n  versions:\n  - schema:\n      properties:\n{fields}");
        assert!(text.len() > 1024 * 1024);
        let definition = read_yaml(text.as_bytes()).unwrap();
        let properties = &definition.value["spec"]["versions"][0]["schema"]["properties"];
        assert_eq!(properties.as_object().map(Map::len), Some(8_000));
    }
}
