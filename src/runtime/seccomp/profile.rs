//! A seccomp profile as rules, and the JSON form in which `Localhost` profiles are written.

use serde::Deserialize;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Compare {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// Argument AND `value` equals `value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A test of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub index: u8,
    pub compare: Compare,
    pub value: u64,
    pub value_two: u64,
}

/// All conditions have to hold. Of several rules for one call, the first that holds decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub default: Action,
    pub rules: Vec<Rule>,
}

/// The form of the OCI specification, with moby's conditional blocks (`includes`, `excludes`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: ActionName,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRule {
    #[serde(default)]
    names: Vec<String>,
    /// The oldest form of such files has one name a rule.
    name: Option<String>,
    action: ActionName,
    errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "null_is_empty")]
    args: Vec<FileArgument>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileArgument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Compare,
}

#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default, deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arches: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
enum ActionName {
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

const EPERM: u16 = 1;

impl ActionName {
    fn with_errno(self, errno: Option<u16>) -> Action {
        match self {
            Self::KillProcess => Action::KillProcess,
            Self::KillThread => Action::KillThread,
            Self::Trap => Action::Trap,
            Self::Errno => Action::Errno(errno.unwrap_or(EPERM)),
            Self::Trace => Action::Trace(errno.unwrap_or(EPERM)),
            Self::Log => Action::Log,
            Self::Allow => Action::Allow,
        }
    }
}

/// Go's name of this machine's architecture, as conditional blocks give it.
const GO_ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Reads a profile file for a container with these capabilities.
pub(super) fn parse(json: &[u8], capabilities: &[String]) -> Result<Profile, serde_json::Error> {
    let file = serde_json::from_slice::<File>(json)?;
    let has = |name: &String| capabilities.contains(name);
    let arch = |name: &String| name == GO_ARCH;
    let rules = file
        .syscalls
        .into_iter()
        .filter(|rule| {
            let FileRule { includes, excludes, .. } = rule;
            includes.caps.iter().all(has)
                && (includes.arches.is_empty() || includes.arches.iter().any(arch))
                && !excludes.caps.iter().any(has)
                && !excludes.arches.iter().any(arch)
        })
        .map(|rule| Rule {
            names: rule.names.into_iter().chain(rule.name).collect(),
            action: rule.action.with_errno(rule.errno_ret),
            conditions: rule
                .args
                .into_iter()
                .map(|FileArgument { index, value, value_two, op }| Condition { index, compare: op, value, value_two })
                .collect(),
        })
        .collect();
    Ok(Profile { default: file.default_action.with_errno(file.default_errno_ret), rules })
}
