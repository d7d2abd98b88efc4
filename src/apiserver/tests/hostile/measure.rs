//! What a request costs: CPU time of the process and of the runtime's thread, and the peak of the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting what it has handed out.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "the heap's peak is seen only by an allocator")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() {
            grown(size - layout.size());
        } else {
            LIVE.fetch_sub(layout.size() - size, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn clock(id: ClockId) -> Duration {
    clock_gettime(id).expect("the clock is there").into()
}

/// What one request took.
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    /// CPU of the thread that the runtime lives on.
    pub(crate) runtime: Duration,
    /// The most that was allocated beyond what was there before.
    pub(crate) memory: usize,
}

pub(crate) struct Meter {
    cpu: Duration,
    runtime: Duration,
    memory: usize,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let memory = LIVE.load(Ordering::Relaxed);
        PEAK.store(memory, Ordering::Relaxed);
        Self { cpu: clock(ClockId::CLOCK_PROCESS_CPUTIME_ID), runtime: clock(ClockId::CLOCK_THREAD_CPUTIME_ID), memory }
    }

    pub(crate) fn stop(self) -> Cost {
        Cost {
            cpu: clock(ClockId::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(self.cpu),
            runtime: clock(ClockId::CLOCK_THREAD_CPUTIME_ID).saturating_sub(self.runtime),
            memory: PEAK.load(Ordering::Relaxed).saturating_sub(self.memory),
        }
    }
}
