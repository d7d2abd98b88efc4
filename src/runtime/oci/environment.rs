//! The environment and the command line of a container's process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::{Error, Result};
use crate::image::config::ProcessDefaults;
use crate::types::ContainerConfig;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the process is told about itself by the runtime.
pub(super) struct Identity<'a> {
    pub hostname: &'a str,
    pub home: &'a str,
}

/// `NAME=value` in the order of first mention; the last value given wins.
pub(super) fn environment(config: &ContainerConfig, image: &ProcessDefaults, identity: &Identity<'_>) -> Vec<String> {
    let (mut merged, mut places) = (Vec::<(&str, &str)>::new(), HashMap::<&str, usize>::new());
    let mut set = |name, value| match places.entry(name) {
        Entry::Occupied(place) => merged[*place.get()].1 = value,
        Entry::Vacant(place) => {
            place.insert(merged.len());
            merged.push((name, value));
        }
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", identity.hostname);
    // Always set: libcontainer would otherwise ask the C library, which may load code from the image.
    set("HOME", identity.home);
    if config.tty {
        set("TERM", "xterm");
    }
    for entry in &image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value);
    }
    for (name, value) in &config.env {
        set(name, value);
    }
    merged.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The command line: a pod's command replaces the image's entrypoint and its arguments.
pub(crate) fn command_line(config: &ContainerConfig, image: &ProcessDefaults) -> Result<Vec<String>> {
    let (command, args) = match (config.command.as_slice(), config.args.as_slice()) {
        ([], []) => (&image.entrypoint[..], &image.cmd[..]),
        ([], args) => (&image.entrypoint[..], args),
        (command, args) => (command, args),
    };
    let line = [command, args].concat();
    if line.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_args_replace_entrypoint_and_cmd() {
        let image = ProcessDefaults { entrypoint: words("entry"), cmd: words("one two"), ..Default::default() };
        for (command, args, expected) in
            [("", "", "entry one two"), ("", "mine", "entry mine"), ("run", "", "run"), ("run", "fast", "run fast")]
        {
            let config = ContainerConfig { command: words(command), args: words(args), ..Default::default() };
            assert_eq!(command_line(&config, &image).unwrap(), words(expected), "{command:?} {args:?}");
        }
        let nothing = command_line(&ContainerConfig::default(), &ProcessDefaults::default());
        assert_eq!(nothing.unwrap_err().to_string(), "no command specified");
    }

    #[test]
    fn later_values_win_and_keep_their_place() {
        let image = ProcessDefaults { env: words("PATH=/img A=1 B"), ..Default::default() };
        let env = [("A", "2"), ("C", "3"), ("HOME", "/mine")].map(|(name, value)| (name.into(), value.into()));
        let config = ContainerConfig { env: env.into(), tty: true, ..Default::default() };
        let found = environment(&config, &image, &Identity { hostname: "web-0", home: "/root" });
        assert_eq!(found, words("PATH=/img HOSTNAME=web-0 HOME=/mine TERM=xterm A=2 B= C=3"));
    }
}
