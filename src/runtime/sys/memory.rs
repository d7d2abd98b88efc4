//! Memory given back to the kernel by a process that is going to wait.

/// Gives back what is free on the heap, and lets go of the program's code.
///
/// The kernel maps sixteen pages around each that is touched, so a process that has only started shows four fifths
/// of its program as its own memory, most of which it never needs again. Unmapped, it is page cache like any other
/// file's: the first to go when memory is short. What is used comes back page by page, without a read from the disk
/// as long as it is cached.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    {
        free_heap();
        unmap_code();
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
fn free_heap() {
    // SAFETY: malloc_trim is thread-safe and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the linker's symbols and madvise have no safe wrappers")]
fn unmap_code() {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    // SAFETY: between the two lie headers, constants and code, mapped from the program's file and never written: data
    // comes behind the end of the code. What is unmapped there is mapped again by the next touch, as it was.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(65_536);
        let length = (end.addr() & !(page - 1)).saturating_sub(start.addr());
        if start.addr().is_multiple_of(page) {
            libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of the program's file that are mapped.
    fn mapped() -> u64 {
        let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut is_program, mut sum) = (false, 0);
        for line in maps.lines() {
            if line.split(' ').next().is_some_and(|range| range.contains('-')) {
                is_program = line.ends_with(&program) && !line.contains(" rw");
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| is_program) {
                sum += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            }
        }
        sum
    }

    #[test]
    fn code_is_let_go() {
        let before = mapped();
        trim_memory();
        let after = mapped();
        assert!(after < before, "{before} KiB and then {after}");
    }
}
