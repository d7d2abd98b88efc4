use super::compile::{AARCH64, ARM, Architecture, CompileError, NATIVE, X86, X86_64, compile};
use super::profile::{Action, Compare, Condition, Profile, Rule, parse};
use super::syscalls::SYSCALLS;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// Runs a filter as the kernel would.
fn run(program: &[ClassicInstruction], audit: u32, number: u32, arguments: &[u64]) -> u32 {
    let mut data = vec![number, audit, 0, 0];
    for index in 0..6 {
        let argument = arguments.get(index).copied().unwrap_or(0);
        data.extend([(argument & 0xffff_ffff) as u32, (argument >> 32) as u32]);
    }
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let step = program[at];
        let jump = |taken: bool| usize::from(if taken { step.jump_true } else { step.jump_false });
        at += 1 + match step.code {
            0x20 => {
                accumulator = data[step.value as usize / 4];
                0
            }
            0x54 => {
                accumulator &= step.value;
                0
            }
            0x05 => step.value as usize,
            0x15 => jump(accumulator == step.value),
            0x25 => jump(accumulator > step.value),
            0x35 => jump(accumulator >= step.value),
            0x06 => return step.value,
            other => panic!("unknown instruction {other:#x}"),
        };
    }
}

fn number(name: &str, architecture: Architecture) -> u32 {
    let row = SYSCALLS.iter().find(|(known, _)| *known == name).unwrap();
    row.1[architecture.column].try_into().unwrap()
}

fn default_for(capabilities: &[&str], architectures: &[Architecture]) -> Vec<ClassicInstruction> {
    let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    compile(&default::profile(&capabilities), architectures).unwrap()
}

#[test]
fn the_table_is_sorted_and_numbers_are_unique() {
    assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    for column in 0..4 {
        let mut numbers = SYSCALLS.iter().map(|row| row.1[column]).filter(|n| *n >= 0).collect::<Vec<_>>();
        numbers.sort_unstable();
        let duplicate = numbers.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(duplicate, None, "column {column}");
    }
}

#[test]
fn runtime_default_decides_as_containerd_does() {
    for architectures in [[X86_64, X86], [AARCH64, ARM]] {
        let plain = default_for(&["CAP_CHOWN"], &architectures);
        let admin = default_for(&["CAP_SYS_ADMIN"], &architectures);
        for architecture in architectures {
            let check = |program, name, arguments: &[u64], expected| {
                let found = run(program, architecture.audit, number(name, architecture), arguments);
                assert_eq!(found, expected, "{name} {arguments:?} on {architecture:?}");
            };
            for name in ["read", "write", "execve", "openat", "futex", "ptrace", "rseq"] {
                check(&plain, name, &[], ALLOW);
            }
            for name in ["mount", "unshare", "keyctl", "bpf", "io_uring_setup", "reboot", "init_module", "swapon"] {
                check(&plain, name, &[], EPERM);
            }
            check(&admin, "mount", &[], ALLOW);
            check(&plain, "clone3", &[], ENOSYS);
            check(&admin, "clone3", &[], ALLOW);
            check(&plain, "clone", &[0x11], ALLOW);
            check(&plain, "clone", &[0x1000_0000], EPERM);
            check(&plain, "personality", &[0xffff_ffff], ALLOW);
            check(&plain, "personality", &[0x1_0000_0000], EPERM);
            check(&plain, "socket", &[2], ALLOW);
            check(&plain, "socket", &[40], EPERM);
        }
        assert_eq!(run(&plain, 0xc000_00f3, 0, &[]), KILL, "a foreign architecture");
        assert_eq!(run(&plain, architectures[0].audit, 9_000, &[]), ENOSYS, "a call of the future");
    }
    let arm = default_for(&[], &[AARCH64, ARM]);
    assert_eq!(run(&arm, ARM.audit, 0xf_0005, &[]), ALLOW, "set_tls");
    assert_eq!(run(&arm, ARM.audit, 0xf_0004, &[]), ENOSYS, "usr32");
}

#[test]
fn every_comparison_sees_all_64_bits() {
    const BIG: u64 = 0x1_0000_0005;
    for (compare, value_two, holds, fails) in [
        (Compare::Equal, 0, vec![BIG], vec![5, BIG + 1, 0x2_0000_0005]),
        (Compare::NotEqual, 0, vec![5, BIG + 1, 0x2_0000_0005], vec![BIG]),
        (Compare::Less, 0, vec![0, 0xffff_ffff, BIG - 1], vec![BIG, BIG + 1, 0x2_0000_0000]),
        (Compare::LessOrEqual, 0, vec![0xffff_ffff, BIG], vec![BIG + 1, 0x2_0000_0000]),
        (Compare::Greater, 0, vec![BIG + 1, 0x2_0000_0000], vec![BIG, 0xffff_ffff]),
        (Compare::GreaterOrEqual, 0, vec![BIG, 0x2_0000_0000], vec![BIG - 1, 0xffff_ffff]),
        (Compare::MaskedEqual, 1, vec![1, 0xff00_0000_0000_0001], vec![BIG, 0, 5]),
    ] {
        let condition = Condition { index: 5, compare, value: BIG, value_two };
        let rule = Rule { names: vec!["read".to_owned()], action: Action::Allow, conditions: vec![condition] };
        let program = compile(&Profile { default: Action::Trap, rules: vec![rule] }, &[X86_64]).unwrap();
        for (arguments, expected) in [(holds, ALLOW), (fails, 0x0003_0000)] {
            for argument in arguments {
                let found = run(&program, X86_64.audit, 0, &[0, 0, 0, 0, 0, argument]);
                assert_eq!(found, expected, "{compare:?} {argument:#x}");
            }
        }
    }
}

#[test]
fn localhost_profiles_keep_order_actions_and_conditions() {
    let json = br#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["kill", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22,
             "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["kill"], "action": "SCMP_ACT_LOG", "args": null},
            {"names": ["reboot"], "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_SYS_BOOT"]}},
            {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS", "excludes": {"caps": ["CAP_CHOWN"]}}
        ]}"#;
    let program = compile(&parse(json, &["CAP_CHOWN".to_owned()]).unwrap(), &[X86_64]).unwrap();
    let check = |name, arguments: &[u64], expected| {
        assert_eq!(run(&program, X86_64.audit, number(name, X86_64), arguments), expected, "{name} {arguments:?}");
    };
    check("kill", &[1, 9], 0x0005_0016);
    check("kill", &[2, 9], 0x7ffc_0000);
    check("reboot", &[], ALLOW);
    check("sync", &[], ALLOW);
    assert_eq!(run(&program, X86_64.audit, 9_000, &[]), ALLOW);
}

#[test]
fn impossible_profiles_are_refused() {
    let condition = Condition { index: 6, compare: Compare::Equal, value: 0, value_two: 0 };
    let rule = Rule { names: vec!["read".to_owned()], action: Action::Allow, conditions: vec![condition] };
    let profile = Profile { default: Action::Trap, rules: vec![rule] };
    assert_eq!(compile(&profile, &NATIVE), Err(CompileError::Argument(6)));
    assert!(parse(br#"{"defaultAction": "SCMP_ACT_NONSENSE"}"#, &[]).is_err());
    let missing = filter(&Seccomp::Localhost("/nonexistent.json".into()), &[]).unwrap_err();
    assert!(missing.to_string().starts_with("failed to load seccomp profile /nonexistent.json: "));
}

#[test]
fn x32_is_no_way_round_a_profile() {
    let deny = Rule { names: vec!["mkdir".to_owned()], conditions: vec![], action: Action::Errno(1) };
    let profile = Profile { default: Action::Allow, rules: vec![deny] };
    let program = compile(&profile, &[X86_64]).unwrap();
    let mkdir = number("mkdir", X86_64);
    assert_eq!(run(&program, X86_64.audit, mkdir, &[]), EPERM);
    assert_eq!(run(&program, X86_64.audit, number("read", X86_64), &[]), ALLOW);
    for call in [mkdir, number("read", X86_64), 512] {
        assert_eq!(run(&program, X86_64.audit, 0x4000_0000 | call, &[]), ENOSYS, "{call}");
    }
}
