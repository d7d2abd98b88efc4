//! What a request for logs asks for, which container it means, and how lines are filtered. Pure.

use api::k8s_openapi::api::core::v1::{Container, ContainerStatus, PodStatus};
use jiff::{SignedDuration, Timestamp};

use crate::pod::container_status;
use crate::status::ID_PREFIX;

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// `PodLogOptions`, as the query carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogQuery {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) wanted: Wanted,
}

impl LogQuery {
    pub(super) fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, String> {
        let mut out = Self::default();
        let number = |name: &str, value: &str| {
            value
                .parse::<i64>()
                .ok()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| format!("{name}: Invalid value: {value:?}: must be greater than or equal to 0"))
        };
        for (name, value) in query {
            match name.as_str() {
                "follow" => out.follow = truth(value),
                "previous" => out.previous = truth(value),
                "timestamps" => out.timestamps = truth(value),
                "tailLines" => out.tail_lines = Some(number(name, value)?),
                "limitBytes" => out.limit_bytes = Some(number(name, value)?),
                "sinceSeconds" => {
                    let seconds = i64::try_from(number(name, value)?).unwrap_or(i64::MAX);
                    out.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                "sinceTime" => {
                    let at = value.parse().map_err(|e| format!("sinceTime: Invalid value: {value:?}: {e}"))?;
                    out.since = Some(at);
                }
                "stream" => {
                    out.wanted = match value.as_str() {
                        "Stdout" => Wanted::Stdout,
                        "Stderr" => Wanted::Stderr,
                        _ => Wanted::All,
                    }
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// As Go's `strconv.ParseBool`, with a bare name meaning yes.
pub(super) fn truth(value: &str) -> bool {
    matches!(value, "" | "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The id of the container whose logs are meant; the error is the text of a 400.
pub(super) fn container_id(
    status: &PodStatus,
    container: &Container,
    pod: &str,
    previous: bool,
) -> Result<String, String> {
    let name = &container.name;
    let Some(status) = container_status(status, name) else {
        return Err(format!("container {name:?} in pod {pod:?} is not available"));
    };
    let bare = |id: Option<&String>| id.map(|id| id.strip_prefix(ID_PREFIX).unwrap_or(id).to_owned());
    let last =
        status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| bare(t.container_id.as_ref()));
    if previous {
        return last.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return bare(status.container_id.as_ref()).ok_or_else(|| waiting(status, name, pod));
    }
    if let Some(terminated) = &state.terminated {
        let own = bare(terminated.container_id.as_ref()).or(last);
        return own.ok_or_else(|| format!("container {name:?} in pod {pod:?} is terminated"));
    }
    last.ok_or_else(|| waiting(status, name, pod))
}

fn waiting(status: &ContainerStatus, name: &str, pod: &str) -> String {
    let reason = status.state.as_ref().and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
    match reason {
        Some("ErrImagePull") => format!("container {name:?} in pod {pod:?} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => {
            format!("container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"),
        None => format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet"),
    }
}

/// Turns lines of a CRI log into what the client reads.
pub(super) struct Filter {
    query: LogQuery,
    left: Option<u64>,
    /// The line before was a piece whose rest follows.
    inside: bool,
}

/// Whether more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Full,
}

impl Filter {
    pub(super) fn new(query: LogQuery) -> Self {
        Self { left: query.limit_bytes, query, inside: false }
    }

    /// Appends what one line (without its newline) gives; lines that are not of the format are left out.
    pub(super) fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> Flow {
        let Some(line) = Line::parse(line) else { return Flow::Continue };
        let wanted = match self.query.wanted {
            Wanted::All => true,
            Wanted::Stdout => line.stream == b"stdout",
            Wanted::Stderr => line.stream == b"stderr",
        };
        if !wanted || self.query.since.is_some_and(|since| line.time().is_some_and(|t| t < since)) {
            return Flow::Continue;
        }
        if self.query.timestamps && !self.inside {
            self.emit(line.timestamp, out);
            self.emit(b" ", out);
        }
        self.emit(line.message, out);
        if !line.partial {
            self.emit(b"\n", out);
        }
        self.inside = line.partial;
        if self.left == Some(0) { Flow::Full } else { Flow::Continue }
    }

    fn emit(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let room = self.left.map_or(data.len(), |left| data.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        out.extend_from_slice(&data[..room]);
        self.left = self.left.map(|left| left - room as u64);
    }
}

/// `<time> <stream> <P|F> <message>`
struct Line<'a> {
    timestamp: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    message: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |&b| b == b' ');
        let (timestamp, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        // Tags may be several, separated by colons; only the first is defined.
        let partial = tag.split(|&b| b == b':').next()? == b"P";
        Some(Self { timestamp, stream, partial, message: parts.next().unwrap_or_default() })
    }

    fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.timestamp).ok()?.parse().ok()
    }
}

/// Where the last `lines` lines begin in `data`.
pub(super) fn tail_start(data: &[u8], lines: u64) -> (usize, u64) {
    let mut left = lines;
    let mut end = data.len();
    if left == 0 {
        return (end, 0);
    }
    // The newline at the very end closes the last line.
    let mut at = data.len().saturating_sub(usize::from(data.last() == Some(&b'\n')));
    while at > 0 {
        if data[at - 1] == b'\n' {
            left -= 1;
            end = at;
            if left == 0 {
                return (end, 0);
            }
        }
        at -= 1;
    }
    let counted = u64::from(!data.is_empty());
    (if counted == 1 { 0 } else { end }, left - counted.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn query(pairs: &[(&str, &str)]) -> Result<LogQuery, String> {
        let pairs: Vec<_> = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        LogQuery::parse(&pairs, Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn queries_are_read() {
        let got =
            query(&[("follow", "true"), ("tailLines", "5"), ("sinceSeconds", "60"), ("stream", "Stderr")]).unwrap();
        assert_eq!((got.follow, got.tail_lines, got.wanted), (true, Some(5), Wanted::Stderr));
        assert_eq!(got.since, Some(Timestamp::from_second(940).unwrap()));
        let at = query(&[("sinceTime", "1970-01-01T00:00:07Z")]).unwrap();
        assert_eq!(at.since, Some(Timestamp::from_second(7).unwrap()));
        assert!(query(&[("tailLines", "-1")]).is_err());
        assert!(query(&[("sinceTime", "yesterday")]).is_err());
    }

    const LOG: &[&str] = &[
        "2026-01-01T00:00:01.000000001Z stdout F one",
        "2026-01-01T00:00:02.000000001Z stderr P tw",
        "2026-01-01T00:00:02.000000002Z stderr F o",
        "garbage",
        "2026-01-01T00:00:03.000000001Z stdout F ",
        "2026-01-01T00:00:04.000000001Z stdout F three words here",
    ];

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: &str) {
        let mut filter = Filter::new(query(pairs).unwrap());
        let mut out = Vec::new();
        for line in LOG {
            if filter.push(line.as_bytes(), &mut out) == Flow::Full {
                break;
            }
        }
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn lines_are_filtered_and_put_together() {
        check(&[], "one\ntwo\n\nthree words here\n");
        check(&[("stream", "Stderr")], "two\n");
        check(&[("sinceTime", "2026-01-01T00:00:03Z")], "\nthree words here\n");
        check(&[("limitBytes", "5")], "one\nt");
        check(&[("timestamps", "1"), ("stream", "Stderr")], "2026-01-01T00:00:02.000000001Z two\n");
    }

    #[test]
    fn the_tail_is_found() {
        for (data, lines, expected) in [
            ("a\nb\nc\n", 2, (2, 0)),
            ("a\nb\nc", 2, (2, 0)),
            ("a\nb\nc\n", 3, (0, 0)),
            ("a\nb\nc\n", 5, (0, 2)),
            ("", 5, (0, 5)),
            ("a\n", 0, (2, 0)),
            ("\n\n", 1, (1, 0)),
        ] {
            assert_eq!(tail_start(data.as_bytes(), lines), expected, "{data:?} {lines}");
        }
    }

    #[test]
    fn the_container_is_found_or_the_error_says_why_not() {
        let c = Container { name: "x".to_owned(), ..Container::default() };
        let id = |state: Value, last: Value, previous: bool| {
            let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{"name": "x", "image": "", "imageID": "",
                "ready": false, "restartCount": 0, "containerID": "coracle://now", "state": state, "lastState": last}]}))
            .unwrap();
            container_id(&status, &c, "y", previous)
        };
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "coracle://before"}});
        assert_eq!(id(json!({"running": {}}), json!({}), false), Ok("now".to_owned()));
        assert_eq!(id(ended.clone(), json!({}), false), Ok("before".to_owned()));
        assert_eq!(
            id(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended.clone(), false),
            Ok("before".to_owned())
        );
        assert_eq!(id(json!({"running": {}}), ended, true), Ok("before".to_owned()));
        for (reason, expected) in [
            ("ContainerCreating", "container \"x\" in pod \"y\" is waiting to start: ContainerCreating"),
            ("ErrImagePull", "container \"x\" in pod \"y\" is waiting to start: image can't be pulled"),
            ("ImagePullBackOff", "container \"x\" in pod \"y\" is waiting to start: trying and failing to pull image"),
        ] {
            assert_eq!(id(json!({"waiting": {"reason": reason}}), json!({}), false), Err(expected.to_owned()));
        }
        assert_eq!(
            id(json!({"running": {}}), json!({}), true),
            Err("previous terminated container \"x\" in pod \"y\" not found".to_owned())
        );
    }
}
