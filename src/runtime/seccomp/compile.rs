//! From rules to classic BPF.
//!
//! A filter runs before every system call of a container, so the calls are found by binary search
//! over ranges of equal treatment (about nine comparisons), not one after another. One program
//! serves the machine's own architecture and the 32-bit one that it also runs; calls of any other
//! are answered by killing the process. Calls newer than everything the profile names fail with
//! ENOSYS, as libc expects of a kernel that lacks them.

use std::collections::BTreeMap;

use super::profile::{Action, Compare, Condition, Profile};
use super::syscalls::SYSCALLS;
use crate::sys::bpf::ClassicInstruction;

/// Index of an architecture's column in the table of system calls, and its audit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    pub column: usize,
    pub audit: u32,
}

pub(super) const X86_64: Architecture = Architecture { column: 0, audit: 0xc000_003e };
pub(super) const AARCH64: Architecture = Architecture { column: 1, audit: 0xc000_00b7 };
pub(super) const ARM: Architecture = Architecture { column: 2, audit: 0x4000_0028 };
pub(super) const X86: Architecture = Architecture { column: 3, audit: 0x4000_0003 };

/// The architectures whose programs this machine runs.
pub(super) const NATIVE: [Architecture; 2] = if cfg!(target_arch = "aarch64") { [AARCH64, ARM] } else { [X86_64, X86] };

const LOAD_ABSOLUTE: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;
/// The first number of x32's calls, which come as x86-64's own.
const X32: u32 = 0x4000_0000;
/// The kernel's limit of instructions in one filter.
const PROGRAM_MAX: usize = 4096;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("seccomp profile is too large: {0} instructions, at most {PROGRAM_MAX} are possible")]
    TooLarge(usize),
    #[error("seccomp profile tests argument {0}; there are only 0 to 5")]
    Argument(u8),
}

/// What happens to one call: the first branch whose conditions hold decides, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Treatment {
    branches: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Treatment {
    fn always(action: Action) -> Self {
        Self { branches: vec![], otherwise: action }
    }
}

pub(super) fn compile(
    profile: &Profile,
    architectures: &[Architecture],
) -> Result<Vec<ClassicInstruction>, CompileError> {
    let mut program = vec![statement(LOAD_ABSOLUTE, OFFSET_ARCHITECTURE)];
    for architecture in architectures {
        let block = block(profile, *architecture)?;
        // Conditional jumps reach 255 instructions, plain ones any number.
        program.push(jump(JUMP_EQUAL, architecture.audit, 1, 0));
        program.push(statement(JUMP, distance(block.len())?));
        program.extend(block);
    }
    program.push(statement(RETURN, encode(Action::KillProcess)));
    if program.len() > PROGRAM_MAX {
        return Err(CompileError::TooLarge(program.len()));
    }
    Ok(program)
}

fn distance(len: usize) -> Result<u32, CompileError> {
    u32::try_from(len).map_err(|_| CompileError::TooLarge(len))
}

/// One architecture's part: every path through it ends in a return.
fn block(profile: &Profile, architecture: Architecture) -> Result<Vec<ClassicInstruction>, CompileError> {
    let mut block = vec![statement(LOAD_ABSOLUTE, OFFSET_NUMBER)];
    block.extend(search(&ranges(profile, architecture))?);
    Ok(block)
}

/// The call numbers cut into ranges: each entry holds from its number to the next entry's.
fn ranges(profile: &Profile, architecture: Architecture) -> Vec<(u32, Treatment)> {
    let mut calls = BTreeMap::<u32, Treatment>::new();
    let mut newest = 0;
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number(name, architecture)) {
            let call = calls.entry(number).or_insert_with(|| Treatment::always(profile.default));
            call.branches.push((rule.conditions.clone(), rule.action));
            // ARM's private calls lie far above the common ones.
            if number < 0xf_0000 {
                newest = newest.max(number);
            }
        }
    }
    for call in calls.values_mut() {
        simplify(call);
    }
    let mut ranges = vec![(0, Treatment::always(profile.default))];
    let mut push = |start: u32, treatment: Treatment| match ranges.last_mut() {
        Some((last, old)) if *last == start => *old = treatment,
        Some((_, old)) if *old == treatment => {}
        Some(_) | None => ranges.push((start, treatment)),
    };
    let unknown = match profile.default {
        Action::Errno(_) => Action::Errno(ENOSYS),
        other @ (Action::KillProcess
        | Action::KillThread
        | Action::Trap
        | Action::Trace(_)
        | Action::Log
        | Action::Allow) => other,
    };
    let after = |number: u32| Treatment::always(if number >= newest { unknown } else { profile.default });
    for (number, call) in calls {
        push(number, call);
        push(number + 1, after(number));
    }
    if architecture == X86_64 {
        // The same calls once more, by other numbers that no profile names: as on a kernel without x32.
        push(X32, Treatment::always(Action::Errno(ENOSYS)));
    }
    ranges
}

/// Branches after one without conditions are never reached.
fn simplify(call: &mut Treatment) {
    if let Some(index) = call.branches.iter().position(|(conditions, _)| conditions.is_empty()) {
        call.otherwise = call.branches[index].1;
        call.branches.truncate(index);
    }
}

fn number(name: &str, architecture: Architecture) -> Option<u32> {
    let row = SYSCALLS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    u32::try_from(SYSCALLS[row].1[architecture.column]).ok()
}

/// A tree of comparisons over the loaded call number.
fn search(ranges: &[(u32, Treatment)]) -> Result<Vec<ClassicInstruction>, CompileError> {
    if let [(_, treatment)] = ranges {
        return treat(treatment);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (pivot, high) = (high[0].0, search(high)?);
    let low = search(low)?;
    let mut code = match u8::try_from(low.len()) {
        Ok(len) => vec![jump(JUMP_GREATER_EQUAL, pivot, len, 0)],
        Err(_) => vec![jump(JUMP_GREATER_EQUAL, pivot, 0, 1), statement(JUMP, distance(low.len())?)],
    };
    code.extend(low);
    code.extend(high);
    Ok(code)
}

fn treat(treatment: &Treatment) -> Result<Vec<ClassicInstruction>, CompileError> {
    let mut code = Vec::new();
    for (conditions, action) in &treatment.branches {
        code.extend(branch(conditions, *action)?);
    }
    code.push(statement(RETURN, encode(treatment.otherwise)));
    Ok(code)
}

/// Returns `action` when all conditions hold, else falls through.
fn branch(conditions: &[Condition], action: Action) -> Result<Vec<ClassicInstruction>, CompileError> {
    let mut code = vec![statement(RETURN, encode(action))];
    for condition in conditions.iter().rev() {
        let escape = u8::try_from(code.len()).map_err(|_| CompileError::TooLarge(code.len()))?;
        let mut tested = test(condition, escape)?;
        tested.extend(code);
        code = tested;
    }
    Ok(code)
}

/// Falls through when the condition holds; otherwise skips `escape` instructions behind itself.
///
/// Arguments are 64 bits wide and BPF's registers 32, so the high halves are compared first.
fn test(condition: &Condition, escape: u8) -> Result<Vec<ClassicInstruction>, CompileError> {
    let Condition { index, compare, value, value_two } = *condition;
    if index > 5 {
        return Err(CompileError::Argument(index));
    }
    let low_offset = OFFSET_ARGUMENTS + 8 * u32::from(index);
    let [high, low] = halves(value);
    let skip = |more: u8| escape.checked_add(more).ok_or(CompileError::TooLarge(usize::from(escape)));
    let load_high = statement(LOAD_ABSOLUTE, low_offset + 4);
    let load_low = statement(LOAD_ABSOLUTE, low_offset);
    Ok(match compare {
        Compare::Equal => {
            vec![load_high, jump(JUMP_EQUAL, high, 0, skip(2)?), load_low, jump(JUMP_EQUAL, low, 0, escape)]
        }
        Compare::NotEqual => {
            vec![load_high, jump(JUMP_EQUAL, high, 0, 2), load_low, jump(JUMP_EQUAL, low, escape, 0)]
        }
        Compare::MaskedEqual => {
            let [two_high, two_low] = halves(value_two);
            vec![
                load_high,
                statement(AND, high),
                jump(JUMP_EQUAL, two_high, 0, skip(3)?),
                load_low,
                statement(AND, low),
                jump(JUMP_EQUAL, two_low, 0, escape),
            ]
        }
        Compare::Greater | Compare::GreaterOrEqual => {
            let last = if compare == Compare::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            vec![
                load_high,
                jump(JUMP_GREATER, high, 3, 0),
                jump(JUMP_EQUAL, high, 0, skip(2)?),
                load_low,
                jump(last, low, 0, escape),
            ]
        }
        Compare::Less | Compare::LessOrEqual => {
            let last = if compare == Compare::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            vec![
                load_high,
                jump(JUMP_GREATER, high, skip(3)?, 0),
                jump(JUMP_EQUAL, high, 0, 2),
                load_low,
                jump(last, low, escape, 0),
            ]
        }
    })
}

fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_be_bytes();
    let half = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("invariant: four bytes"));
    [half(0), half(4)]
}

const fn statement(code: u16, value: u32) -> ClassicInstruction {
    jump(code, value, 0, 0)
}

const fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> ClassicInstruction {
    ClassicInstruction { code, jump_true, jump_false, value }
}

fn encode(action: Action) -> u32 {
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Trace(data) => 0x7ff0_0000 | u32::from(data),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}
