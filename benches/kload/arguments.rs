//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// What to measure; `main.rs` says what each test does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Ready,
    Get,
    List,
    Put,
    Put1,
    Churn,
    Fanout,
    Pods,
    Pods50,
}

impl Test {
    const ALL: [Self; 9] = [
        Self::Ready,
        Self::Get,
        Self::List,
        Self::Put,
        Self::Put1,
        Self::Churn,
        Self::Fanout,
        Self::Pods,
        Self::Pods50,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::Put1 => "put1",
            Self::Churn => "churn",
            Self::Fanout => "fanout",
            Self::Pods => "pods",
            Self::Pods50 => "pods50",
        }
    }

    /// Only the short closed loops are repeated: the others repeat within.
    pub(crate) fn repeats(self, wanted: usize) -> usize {
        match self {
            Self::Get | Self::List | Self::Put | Self::Put1 | Self::Churn => wanted,
            Self::Ready | Self::Fanout | Self::Pods | Self::Pods50 => 1,
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub kubeconfig: PathBuf,
    pub pid: Option<u32>,
    pub cpu: Option<PathBuf>,
    /// How long a closed loop is measured.
    pub window: Duration,
    pub repeats: usize,
    pub image: String,
    /// Wait for a line of input while all pods of a burst run.
    pub hold: bool,
    pub tests: Vec<Test>,
}

impl Arguments {
    /// # Errors
    /// Names the argument that is wrong or missing.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            kubeconfig: PathBuf::new(),
            pid: None,
            cpu: None,
            window: Duration::from_secs(10),
            repeats: 3,
            image: "docker.io/library/busybox:latest".to_owned(),
            hold: false,
            tests: Vec::new(),
        };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--kubeconfig" => parsed.kubeconfig = value()?.into(),
                "--pid" => parsed.pid = Some(number(&argument, &value()?)?),
                "--cpu" => parsed.cpu = Some(value()?.into()),
                "--secs" => parsed.window = Duration::from_secs(number(&argument, &value()?)?),
                "--repeats" => parsed.repeats = number(&argument, &value()?)?,
                "--image" => parsed.image = value()?,
                "--hold" => parsed.hold = true,
                name => match Test::ALL.into_iter().find(|t| t.name() == name) {
                    Some(test) => parsed.tests.push(test),
                    None => bail!("unknown argument {name}"),
                },
            }
        }
        ensure!(!parsed.kubeconfig.as_os_str().is_empty(), "--kubeconfig is missing");
        ensure!(!parsed.tests.is_empty(), "name at least one test");
        ensure!(parsed.repeats > 0 && !parsed.window.is_zero(), "--repeats and --secs must be more than 0");
        Ok(parsed)
    }
}

fn number<T: FromStr>(argument: &str, text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{argument}: {text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned)).map_err(|e| e.to_string())
    }

    #[test]
    fn options_and_tests_mix() {
        let parsed = parse("get --pid 7 --kubeconfig k --hold --secs 3 pods50").unwrap();
        assert_eq!(parsed.tests, [Test::Get, Test::Pods50]);
        assert_eq!((parsed.pid, parsed.hold, parsed.window), (Some(7), true, Duration::from_secs(3)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows = [
            ("get", "--kubeconfig is missing"),
            ("--kubeconfig k", "name at least one test"),
            ("--kubeconfig k got", "unknown argument got"),
            ("--kubeconfig", "--kubeconfig needs a value"),
            ("--kubeconfig k --pid x get", "--pid: \"x\" is no number"),
            ("--kubeconfig k --repeats 0 get", "--repeats and --secs must be more than 0"),
        ];
        for (line, expected) in rows {
            assert_eq!(parse(line).unwrap_err(), expected, "{line}");
        }
    }
}
