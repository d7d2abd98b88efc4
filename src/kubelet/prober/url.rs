//! URLs of probes and hooks, by the rules of Go's `net/url`: what a pod's author wrote as a path is parsed
//! as a URL reference, and taken literally where that fails.
//!
//! Upstream's kubelet is where those rules come from, and containers that are healthy under them must be
//! so here. One thing differs on the wire: blanks, quotes and other bytes that do not belong into a query
//! are escaped, where Go sends them as they are and most servers then answer 400.

/// A URL of a probe. `path` is escaped and begins with a slash, or is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    /// Present, though perhaps empty, behind a question mark.
    pub(super) query: Option<String>,
    /// From an absolute URL in place of a path: name and password.
    pub(super) user: Option<(String, String)>,
}

/// Why there is no such URL, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?}: {why}")]
pub(super) struct NoUrl {
    pub(super) url: String,
    pub(super) why: String,
}

/// A URL reference taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reference {
    scheme: String,
    opaque: String,
    authority: Option<Authority>,
    /// Escaped.
    path: String,
    query: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Authority {
    user: Option<(String, String)>,
    host: String,
}

impl Url {
    /// Where a path of a probe leads: scheme, host and port are given, whatever the path says of them.
    pub(super) fn of(https: bool, host: &str, port: u16, path: &str) -> Result<Self, NoUrl> {
        let reference = Reference::parse(path)
            .unwrap_or_else(|_| Reference { path: escape(path.as_bytes(), stays_in_path), ..Reference::default() });
        if !reference.opaque.is_empty() {
            let scheme = if https { "https" } else { "http" };
            let query = reference.query.map(|query| format!("?{query}")).unwrap_or_default();
            let url = format!("{scheme}:{}{query}", reference.opaque);
            return Err(NoUrl { url, why: "http: no Host in request URL".to_owned() });
        }
        let slash = if reference.path.is_empty() || reference.path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            https,
            host: host.to_owned(),
            port,
            path: format!("{slash}{}", reference.path),
            query: reference.query,
            user: reference.authority.and_then(|authority| authority.user),
        })
    }

    /// Where a redirect leads from here.
    pub(super) fn join(&self, location: &str) -> Result<Self, NoUrl> {
        let failed = |why| NoUrl {
            url: self.text(),
            why: format!("failed to parse Location header {location:?}: parse {location:?}: {why}"),
        };
        let reference = Reference::parse(location).map_err(failed)?;
        let https = match reference.scheme.as_str() {
            "" => self.https,
            "http" => false,
            "https" => true,
            other => {
                let why = format!("unsupported protocol scheme {other:?}");
                return Err(NoUrl { url: location.to_owned(), why });
            }
        };
        if !reference.opaque.is_empty() {
            return Err(NoUrl { url: location.to_owned(), why: "http: no Host in request URL".to_owned() });
        }
        if let Some(authority) = reference.authority {
            let (host, port) =
                split_port(&authority.host).ok_or_else(|| failed("invalid port after host".to_owned()))?;
            let port = port.unwrap_or(if https { 443 } else { 80 });
            let path = without_dots(&reference.path);
            return Ok(Self { https, host, port, path, query: reference.query, user: authority.user });
        }
        let stays = reference.path.is_empty() && reference.query.is_none();
        let full = match reference.path.as_str() {
            "" => self.path.clone(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("{}{path}", &self.path[..self.path.rfind('/').map_or(0, |at| at + 1)]),
        };
        let query = if stays { self.query.clone() } else { reference.query };
        Ok(Self { path: without_dots(&full), query, https, ..self.clone() })
    }

    /// As it stands in messages; a password does not.
    pub(super) fn text(&self) -> String {
        let user = self.user.as_ref().map(|(name, password)| {
            let hidden = if password.is_empty() { "" } else { ":***" };
            format!(
                "{}{hidden}@",
                escape(name.as_bytes(), |byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
            )
        });
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}{}{query}", user.unwrap_or_default(), self.authority(), self.path)
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What stands in the request's first line.
    pub(super) fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{}", escape(query.as_bytes(), stays_in_query)),
            None => path.to_owned(),
        }
    }
}

impl Reference {
    fn parse(text: &str) -> Result<Self, String> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        unescape(fragment)?;
        if text == "*" {
            return Ok(Self { path: "*".to_owned(), ..Self::default() });
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
        let mut reference = Self { scheme: scheme.to_ascii_lowercase(), query, ..Self::default() };
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                rest.clone_into(&mut reference.opaque);
                return Ok(reference);
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let mut path = rest;
        if let Some(behind) = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
            let at = behind.find('/').unwrap_or(behind.len());
            path = &behind[at..];
            reference.authority = Some(Authority::parse(&behind[..at])?).filter(|a| *a != Authority::default());
        }
        reference.path = escaped(path)?;
        Ok(reference)
    }
}

impl Authority {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
        check_host(host)?;
        let user = user.map(|user| {
            if user.bytes().any(|byte| !(byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte))) {
                return Err("net/url: invalid userinfo".to_owned());
            }
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = |text| Ok::<_, String>(String::from_utf8_lossy(&unescape(text)?).into_owned());
            Ok((decoded(name)?, decoded(password)?))
        });
        Ok(Self { user: user.transpose()?, host: host.to_owned() })
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let colon_port = match host.rfind(']') {
        Some(end) if host.starts_with('[') => &host[end + 1..],
        None if host.starts_with('[') => return Err("missing ']' in host".to_owned()),
        _ => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let is_port = |text: &str| text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    if !colon_port.is_empty() && !is_port(colon_port) {
        return Err(format!("invalid port {colon_port:?} after host"));
    }
    let bytes = host.as_bytes();
    for (at, byte) in host.bytes().enumerate() {
        if byte == b'%' {
            let escape = bytes.get(at + 1..at + 3).map(String::from_utf8_lossy).unwrap_or_default();
            let value = u8::from_str_radix(&escape, 16);
            // Only bytes beyond ASCII are escaped in a host, and the sign itself before a zone.
            if escape.len() < 2 || !value.is_ok_and(|value| value >= 0x80 || value == b'%') {
                return Err(format!("invalid URL escape \"%{escape}\""));
            }
        } else if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte) {
            return Err(format!("invalid character {:?} in host name", char::from(byte).to_string()));
        }
    }
    Ok(())
}

/// Host and port of an authority that was checked; absent when the port is none.
fn split_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => (&authority[..at], &authority[at + 1..]),
        _ => (authority, ""),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    Some((host.trim_matches(['[', ']']).to_owned(), port))
}

/// The path as it is sent: as it was written, if that is a way to write it, else escaped anew.
fn escaped(path: &str) -> Result<String, String> {
    let decoded = unescape(path)?;
    let well_written = |byte: u8| stays_in_path(byte) || b"!'()*[]%".contains(&byte);
    if path.bytes().all(well_written) { Ok(path.to_owned()) } else { Ok(escape(&decoded, stays_in_path)) }
}

fn stays_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

fn stays_in_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>#".contains(&byte)
}

fn escape(bytes: &[u8], stays: impl Fn(u8) -> bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(value.ok_or_else(|| {
            let end = bytes.len().min(at + 3);
            format!("invalid URL escape {:?}", String::from_utf8_lossy(&bytes[at..end]))
        })?);
        at += 3;
    }
    Ok(out)
}

/// Without the segments `.` and `..`; begins with a slash unless it is empty.
fn without_dots(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "." => {}
            ".." => drop(out.pop()),
            other => out.push(other),
        }
        if last && matches!(*segment, "." | "..") {
            out.push("");
        }
    }
    format!("/{}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_request_targets_as_in_go() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/healthz?full", "/healthz?full"),
            ("/healthz?", "/healthz?"),
            ("/a b", "/a%20b"),
            ("/a\"b", "/a%22b"),
            ("/grün", "/gr%C3%BCn"),
            ("/gr%C3%BCn", "/gr%C3%BCn"),
            ("/gr%c3%bcn x", "/gr%C3%BCn%20x"),
            ("/a%2fb", "/a%2fb"),
            ("/a%2fb c", "/a/b%20c"),
            ("/a(b)'!*[c]", "/a(b)'!*[c]"),
            ("/a{b}|^`<>\\", "/a%7Bb%7D%7C%5E%60%3C%3E%5C"),
            ("/q?a=b c&d=\"e\"&f=<g>&h=ü", "/q?a=b%20c&d=%22e%22&f=%3Cg%3E&h=%C3%BC"),
            ("/q?query=up{job=\"x\"}", "/q?query=up{job=%22x%22}"),
            ("/q?a=%zz", "/q?a=%zz"),
            ("/q?a?b", "/q?a?b"),
            // No URL: taken literally, the question mark included.
            ("/%zz", "/%25zz"),
            ("/%zz?a=1", "/%25zz%3Fa=1"),
            ("/a%", "/a%25"),
            ("/a\nb?c", "/a%0Ab%3Fc"),
            ("/a#%zz", "/a%23%25zz"),
            (":80/x", "/:80/x"),
            ("1a:b", "/1a:b"),
            ("//a b/c", "//a%20b/c"),
            ("http://[::1/x", "/http://%5B::1/x"),
            // Absolute: the host is not theirs to say.
            ("http://example.org/x y?z", "/x%20y?z"),
            ("//example.org/x", "/x"),
            ("https://example.org", "/"),
            ("///x", "///x"),
            ("/a#fragment", "/a"),
            ("#fragment", "/"),
            ("*", "/*"),
            ("/a/../b/./c", "/a/../b/./c"),
        ] {
            assert_eq!(Url::of(false, "10.0.0.1", 80, path).unwrap().target(), expected, "{path}");
        }
    }

    #[test]
    fn opaque_urls_have_no_host() {
        for (path, expected) in [("mailto:a?b", "http:a?b"), ("a:b/c d", "http:b/c d")] {
            let failed = Url::of(false, "10.0.0.1", 80, path).unwrap_err();
            assert_eq!(failed.to_string(), format!("{expected:?}: http: no Host in request URL"));
        }
    }

    #[test]
    fn names_and_passwords_come_from_absolute_urls() {
        let url = Url::of(true, "::1", 443, "http://me:s%20t@example.org/x").unwrap();
        assert_eq!(url.user, Some(("me".to_owned(), "s t".to_owned())));
        assert_eq!(url.text(), "https://me:***@[::1]:443/x");
        assert_eq!(Url::of(false, "h", 80, "http://a b@c/x").unwrap().target(), "/http://a%20b@c/x");
    }

    #[test]
    fn redirects_lead_on_from_where_they_are_told() {
        let from = Url::of(false, "10.0.0.1", 8080, "/a/b?q").unwrap();
        for (location, expected) in [
            ("/x y", "http://10.0.0.1:8080/x%20y"),
            ("c?d", "http://10.0.0.1:8080/a/c?d"),
            ("../c", "http://10.0.0.1:8080/c"),
            ("../../../c/.", "http://10.0.0.1:8080/c/"),
            ("?r", "http://10.0.0.1:8080/a/b?r"),
            ("#f", "http://10.0.0.1:8080/a/b?q"),
            ("https://10.0.0.1/", "https://10.0.0.1:443/"),
            ("//10.0.0.2:90", "http://10.0.0.2:90"),
            ("http://[::1]:81/x", "http://[::1]:81/x"),
        ] {
            assert_eq!(from.join(location).unwrap().text(), expected, "{location}");
        }
        for (location, why) in [
            ("ftp://10.0.0.1/", "unsupported protocol scheme \"ftp\""),
            ("/%zz", "failed to parse Location header \"/%zz\": parse \"/%zz\": invalid URL escape \"%zz\""),
        ] {
            assert_eq!(from.join(location).unwrap_err().why, why);
        }
    }
}
