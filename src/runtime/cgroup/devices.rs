//! Which devices an unprivileged container may use: the harmless character devices that every
//! container gets, and no block device at all, not even to make one. (Other runtimes let containers
//! make any device node and only refuse to open it; on a board whose root is an SD card there is
//! nothing to gain from that.)

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{IoContext, Result};
use crate::sys::bpf::{ExtendedInstruction, attach_device_filter};

/// `None` is any number.
struct Device {
    major: i32,
    minor: Option<i32>,
}

const fn device(major: i32, minor: i32) -> Device {
    Device { major, minor: Some(minor) }
}

/// null, zero, full, random, urandom, tty, console, ptmx and the pseudo-terminals.
const ALLOWED: [Device; 9] = [
    device(1, 3),
    device(1, 5),
    device(1, 7),
    device(1, 8),
    device(1, 9),
    device(5, 0),
    device(5, 1),
    device(5, 2),
    Device { major: 136, minor: None },
];

/// libcontainer has allowed its own list in `devices` by now; this takes back what goes beyond ours.
pub(super) fn restrict_v1(dir: &Path) -> Result<()> {
    let write = |file: &str, rule: &str| {
        let target = dir.join(file);
        fs::write(&target, rule).at("write", &target)
    };
    write("devices.deny", "a")?;
    write("devices.allow", "c *:* m")?;
    for device in &ALLOWED {
        let minor = device.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        write("devices.allow", &format!("c {}:{minor} rwm", device.major))?;
    }
    Ok(())
}

pub(super) fn restrict_v2(dir: &Path) -> Result<()> {
    let cgroup = File::open(dir).at("open", dir)?;
    attach_device_filter(cgroup.as_fd(), &program()).at("attach the device filter to", dir)
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const AND_VALUE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
const CHARACTER: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_BITS: i32 = 7;

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> ExtendedInstruction {
    ExtendedInstruction { code, registers: destination | source << 4, offset, value }
}

/// The filter: `struct bpf_cgroup_dev_ctx` holds type and access in one word, then major and minor.
fn program() -> Vec<ExtendedInstruction> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND_VALUE, 3, 0, 0, 0xffff),
        instruction(MOVE_REGISTER, 4, 2, 0, 0),
        instruction(SHIFT_RIGHT, 4, 0, 0, 16),
        instruction(LOAD_WORD, 5, 1, 4, 0),
        instruction(LOAD_WORD, 6, 1, 8, 0),
    ];
    program.extend(rule(ACCESS_MKNOD, None));
    for device in &ALLOWED {
        program.extend(rule(ACCESS_BITS, Some(device)));
    }
    program.push(instruction(MOVE_VALUE, 0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// Allows `access` to a character device (any, when absent); otherwise falls through to what follows.
fn rule(access: i32, device: Option<&Device>) -> Vec<ExtendedInstruction> {
    let mut rule = vec![
        instruction(JUMP_NOT_EQUAL, 3, 0, 0, CHARACTER),
        instruction(MOVE_REGISTER, 0, 4, 0, 0),
        instruction(AND_VALUE, 0, 0, 0, !access & ACCESS_BITS),
        instruction(JUMP_NOT_EQUAL, 0, 0, 0, 0),
    ];
    if let Some(device) = device {
        rule.push(instruction(JUMP_NOT_EQUAL, 5, 0, 0, device.major));
        rule.extend(device.minor.map(|minor| instruction(JUMP_NOT_EQUAL, 6, 0, 0, minor)));
    }
    rule.push(instruction(MOVE_VALUE, 0, 0, 0, 1));
    rule.push(instruction(EXIT, 0, 0, 0, 0));
    let len = rule.len();
    for (index, step) in rule.iter_mut().enumerate() {
        if step.code == JUMP_NOT_EQUAL {
            step.offset = i16::try_from(len - index - 1).expect("invariant: a rule has at most eight steps");
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would, for the instructions that it uses.
    fn allows(kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [kind | access << 16, major, minor];
        let program = program();
        let mut registers = [0_i32; 8];
        let mut at = 0;
        loop {
            let step = program[at];
            let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
            match step.code {
                LOAD_WORD => registers[to] = context[usize::try_from(step.offset).unwrap() / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_VALUE => registers[to] = step.value,
                AND_VALUE => registers[to] &= step.value,
                SHIFT_RIGHT => registers[to] >>= step.value,
                JUMP_NOT_EQUAL if registers[to] != step.value => at += usize::try_from(step.offset).unwrap(),
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn only_harmless_character_devices_pass() {
        const BLOCK: i32 = 1;
        const READ_WRITE: i32 = 6;
        for (kind, access, major, minor, expected) in [
            (CHARACTER, READ_WRITE, 1, 3, true),
            (CHARACTER, READ_WRITE, 136, 77, true),
            (CHARACTER, READ_WRITE, 1, 1, false),
            (CHARACTER, READ_WRITE, 10, 200, false),
            (CHARACTER, ACCESS_MKNOD, 10, 200, true),
            (BLOCK, READ_WRITE, 179, 0, false),
            (BLOCK, ACCESS_MKNOD, 179, 0, false),
            (BLOCK, READ_WRITE, 1, 3, false),
        ] {
            assert_eq!(allows(kind, access, major, minor), expected, "type {kind} access {access} {major}:{minor}");
        }
    }
}
