//! What a sandbox is found to be, from its records on disk and from what its shim tells: a pure decision.
//!
//! The shim is believed before the disk. A record that cannot be read never means that there is nothing:
//! as long as something of the sandbox may run, it is either known from elsewhere or left alone.

use std::collections::BTreeMap;

use super::state::Phase;
use crate::contract::held::HeldRecords;
use crate::contract::protocol::ContainerNow;
use crate::contract::records::{ContainerRecord, Exit, SandboxRecord};
use crate::types::SandboxConfig;

/// What became of reading one record.
#[derive(Debug)]
pub(super) enum Reading<T> {
    There(T),
    Absent,
    /// The text says how.
    Damaged(String),
}

impl<T> Reading<T> {
    fn there(self) -> Option<T> {
        match self {
            Self::There(value) => Some(value),
            Self::Absent | Self::Damaged(_) => None,
        }
    }
}

/// The records of one sandbox.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub sandbox: Reading<SandboxRecord>,
    /// By id: a directory without a record is one, too.
    pub containers: BTreeMap<String, ContainerFiles>,
}

#[derive(Debug)]
pub(super) struct ContainerFiles {
    pub record: Reading<ContainerRecord>,
    pub exit: Reading<Exit>,
}

/// What the shim says.
#[derive(Debug)]
pub(super) enum Told {
    Records(Box<HeldRecords>),
    /// By a shim that does not give its records away: which containers it started.
    State(Vec<ContainerNow>),
    Gone,
    /// It could not be asked.
    Unclear(String),
}

#[derive(Debug)]
pub(super) enum Finding {
    Known(Known),
    /// Something may run that nobody knows enough of: it is left alone.
    Unknown {
        reason: String,
        known: Known,
    },
    /// Nothing runs, and nothing is known.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// Absent only where nobody has it.
    pub record: Option<SandboxRecord>,
    pub containers: BTreeMap<String, (ContainerRecord, Phase)>,
    /// The sandbox's own record is to be written again.
    pub heal_sandbox: bool,
    /// Containers whose records are to be written again: the disk has none, or one with secrets.
    pub heal: Vec<String>,
    /// Containers that were never completed; nothing of them runs.
    pub unfinished: Vec<String>,
    /// What was damaged, for the log.
    pub complaints: Vec<String>,
}

/// `lives`: whether any process of the sandbox runs; it only matters when there is no shim to ask.
pub(super) fn find(disk: OnDisk, told: Told, lives: bool) -> Finding {
    let OnDisk { sandbox, containers } = disk;
    let mut finder = Finder::default();
    let damage = finder.read_sandbox(sandbox);
    match told {
        Told::Records(held) => {
            finder.shim_lives = true;
            finder.believe(*held, damage.is_some(), &containers);
        }
        Told::State(now) => {
            if damage.is_some() && now.is_empty() && containers.is_empty() {
                return Finding::Nothing;
            }
            finder.shim_lives = true;
            finder.running.extend(now.into_iter().map(|container| (container.id.clone(), container)));
            finder.unknown = damage;
        }
        Told::Gone if damage.is_some() && !lives => return Finding::Nothing,
        Told::Gone => finder.unknown = damage,
        Told::Unclear(reason) => finder.unknown = Some(reason),
    }
    for (id, files) in containers {
        finder.read_container(id, files);
    }
    finder.finish()
}

#[derive(Default)]
struct Finder {
    known: Known,
    unknown: Option<String>,
    shim_lives: bool,
    /// What a shim says that keeps its records to itself.
    running: BTreeMap<String, ContainerNow>,
}

impl Finder {
    /// What is wrong with the record.
    fn read_sandbox(&mut self, reading: Reading<SandboxRecord>) -> Option<String> {
        match reading {
            Reading::There(record) => {
                self.known.record = Some(record);
                None
            }
            Reading::Absent => Some("its record is missing".to_owned()),
            Reading::Damaged(text) => {
                self.known.complaints.push(text.clone());
                Some(text)
            }
        }
    }

    fn believe(&mut self, held: HeldRecords, heal_sandbox: bool, files: &BTreeMap<String, ContainerFiles>) {
        self.known.heal_sandbox = heal_sandbox;
        self.known.record = Some(held.sandbox);
        for container in held.containers {
            let id = container.record.id.clone();
            let starting = container.now.pid == 0 && container.now.exit.is_none();
            let phase = if starting { Phase::Created } else { Phase::of(container.now) };
            match files.get(&id).map(|files| &files.record) {
                Some(Reading::There(record)) if record.bare => {}
                // The shim has read all that it needs of it.
                Some(Reading::There(_)) => self.known.heal.push(id.clone()),
                Some(Reading::Damaged(text)) => {
                    self.known.complaints.push(text.clone());
                    self.known.heal.push(id.clone());
                }
                Some(Reading::Absent) | None => self.known.heal.push(id.clone()),
            }
            self.known.containers.insert(id, (container.record, phase));
        }
    }

    fn read_container(&mut self, id: String, files: ContainerFiles) {
        if self.known.containers.contains_key(&id) {
            return;
        }
        let now = self.running.remove(&id);
        let record = match files.record {
            Reading::There(record) => record,
            // The record comes before the start.
            Reading::Absent if now.is_none() => return self.known.unfinished.push(id),
            Reading::Absent => return self.miss(&id),
            Reading::Damaged(text) => {
                if now.is_some() {
                    self.unknown.get_or_insert_with(|| text.clone());
                }
                return self.known.complaints.push(text);
            }
        };
        if let Reading::Damaged(text) = &files.exit {
            self.known.complaints.push(text.clone());
        }
        let unstarted = self.shim_lives && matches!(files.exit, Reading::Absent);
        let phase = match (now, files.exit.there()) {
            (Some(now), _) => Phase::of(now),
            (None, Some(exit)) => Phase::Exited(exit),
            (None, None) if unstarted => Phase::Created,
            (None, None) => Phase::Lost,
        };
        // A container is started once: after that nobody asks for its environment and command line.
        if !record.bare && phase != Phase::Created {
            self.known.heal.push(id.clone());
        }
        self.known.containers.insert(id, (record, phase));
    }

    fn miss(&mut self, id: &str) {
        self.unknown.get_or_insert_with(|| format!("the record of its container {id} is missing"));
    }

    fn finish(mut self) -> Finding {
        if let Some((id, _)) = self.running.pop_first() {
            self.miss(&id);
        }
        let Some(reason) = self.unknown else { return Finding::Known(self.known) };
        // Its shim may be about to read them.
        self.known.heal.clear();
        self.known.unfinished.clear();
        // As of one whose connection broke (`Sandbox::leave_alone`).
        for (_, phase) in self.known.containers.values_mut().filter(|(_, phase)| !phase.ended()) {
            *phase = Phase::Lost;
        }
        Finding::Unknown { reason, known: self.known }
    }
}

/// Stands for a record that nobody has.
pub(super) fn placeholder(uid: &str) -> SandboxRecord {
    let config = SandboxConfig { uid: uid.to_owned(), ..SandboxConfig::default() };
    SandboxRecord { config, created_at_ns: 0, log_limit: Default::default() }
}

#[cfg(test)]
mod tests;
