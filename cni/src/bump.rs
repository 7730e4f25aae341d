//! An allocator that gives the next bytes and takes nothing back: the least that allocating can cost, for `cargo xtask bench
//! experiments` alone. No product has it: docs/adr/0016-experiments.md.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More than any call needs; what nobody touches is no memory.
const SIZE: usize = 256 << 20;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: each byte is given once, by the atomic counter below, and is nobody else's from then on.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

struct Bump;

#[global_allocator]
static BUMP: Bump = Bump;

// SAFETY: what is given is inside of the arena, aligned as asked for, and given once.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = ARENA.0.get().cast::<u8>();
        if NEXT.load(Ordering::Relaxed) == 0 {
            // Where huge pages are always on, the first byte would cost the zeroing of two megabytes, more than all of glibc's work.
            // SAFETY: the arena's own pages, whose content stays.
            unsafe { libc::madvise(base.cast(), SIZE, libc::MADV_NOHUGEPAGE) };
        }
        let given = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let end = start(base, next, layout).checked_add(layout.size())?;
            (end <= SIZE).then_some(end)
        });
        // SAFETY: `end`, and so `start`, is inside of the arena.
        given.map_or(null_mut(), |next| unsafe {
            base.add(start(base, next, layout))
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same. Nothing is given twice, so that it is zero still.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// Where the next allocation begins.
fn start(base: *mut u8, next: usize, layout: Layout) -> usize {
    (base.addr() + next).next_multiple_of(layout.align()) - base.addr()
}
