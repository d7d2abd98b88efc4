//! The two uses of BPF that containers need: loading a seccomp filter (classic BPF) and attaching
//! a device filter to a cgroup (extended BPF).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of classic BPF, as `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassicInstruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub value: u32,
}

/// One instruction of extended BPF, as `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtendedInstruction {
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub value: i32,
}

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u64 = 15;
const BPF_CGROUP_DEVICE: u64 = 6;
const BPF_F_ALLOW_MULTI: u64 = 2;
/// `union bpf_attr` in words, more than the fields used here.
const ATTRIBUTE_WORDS: usize = 16;

/// Filters the system calls of this process and its children from now on. Needs CAP_SYS_ADMIN or
/// no_new_privs.
#[expect(unsafe_code, reason = "seccomp has no safe wrapper")]
pub(crate) fn load_seccomp(program: &[ClassicInstruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const ClassicInstruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: the kernel reads `len` instructions, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a device filter to a cgroup; it lasts as long as the cgroup.
#[expect(unsafe_code, reason = "bpf has no safe wrapper")]
pub(crate) fn attach_device_filter(cgroup: BorrowedFd<'_>, program: &[ExtendedInstruction]) -> io::Result<()> {
    let mut attributes = [0_u64; ATTRIBUTE_WORDS];
    attributes[0] = BPF_PROG_TYPE_CGROUP_DEVICE | (program.len() as u64) << 32;
    attributes[1] = program.as_ptr() as u64;
    attributes[2] = c"Apache-2.0".as_ptr() as u64;
    attributes[8] = BPF_CGROUP_DEVICE << 32;
    let filter = i32::try_from(call(BPF_PROG_LOAD, &mut attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    let filter = unsafe { OwnedFd::from_raw_fd(filter) };
    let mut attributes = [0_u64; ATTRIBUTE_WORDS];
    attributes[0] = u64::from(cgroup.as_raw_fd().unsigned_abs()) | u64::from(filter.as_raw_fd().unsigned_abs()) << 32;
    attributes[1] = BPF_CGROUP_DEVICE | BPF_F_ALLOW_MULTI << 32;
    call(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

#[expect(unsafe_code, reason = "bpf has no safe wrapper")]
fn call(command: libc::c_int, attributes: &mut [u64; ATTRIBUTE_WORDS]) -> io::Result<libc::c_long> {
    // SAFETY: the pointers inside stem from live slices of the callers; the size is the array's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
