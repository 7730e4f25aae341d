//! An allocator that gives the next bytes and takes nothing back: the least that allocating can cost, for `cargo xtask bench
//! experiments` alone. No product has it: docs/adr/0016-experiments.md.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "never-free")]
#[global_allocator]
static BUMP: Bump<{ 256 << 20 }> = Bump::new(); // more than any call needs; what nobody touches is no memory

/// Pages of its own, of which the counter needs none beside the first block's.
#[repr(C, align(4096))]
struct Bump<const SIZE: usize> {
    next: AtomicUsize,
    arena: UnsafeCell<[u8; SIZE]>,
}

// SAFETY: each byte is given once, by the atomic counter, and is nobody else's from then on.
unsafe impl<const SIZE: usize> Sync for Bump<SIZE> {}

impl<const SIZE: usize> Bump<SIZE> {
    const fn new() -> Self {
        Self {
            next: AtomicUsize::new(0),
            arena: UnsafeCell::new([0; SIZE]),
        }
    }

    fn base(&self) -> *mut u8 {
        self.arena.get().cast()
    }

    /// Where the next allocation begins.
    fn start(&self, next: usize, layout: Layout) -> usize {
        let base = self.base().addr();
        (base + next).next_multiple_of(layout.align()) - base
    }

    /// Whether a block was the last one given, and has grown where it is.
    fn grows(&self, block: *mut u8, size: usize, new_size: usize) -> bool {
        let start = block.addr() - self.base().addr();
        let end = start.checked_add(new_size).filter(|end| *end <= SIZE);
        end.is_some_and(|end| {
            let (last, order) = (start + size, Ordering::Relaxed);
            self.next.compare_exchange(last, end, order, order).is_ok()
        })
    }
}

// SAFETY: what is given is inside of the arena, aligned as asked for, and given once.
unsafe impl<const SIZE: usize> GlobalAlloc for Bump<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.base();
        if self.next.load(Ordering::Relaxed) == 0 {
            // Where huge pages are always on, the first byte would cost the zeroing of two megabytes, more than all of glibc's work.
            let pages = std::ptr::from_ref(self).cast_mut().cast();
            // SAFETY: these pages are nobody else's, and their content stays.
            unsafe { libc::madvise(pages, size_of::<Self>(), libc::MADV_NOHUGEPAGE) };
        }
        let relaxed = Ordering::Relaxed;
        let given = self.next.fetch_update(relaxed, relaxed, |next| {
            let end = self.start(next, layout).checked_add(layout.size())?;
            (end <= SIZE).then_some(end)
        });
        // SAFETY: the end, and so the start, is inside of the arena.
        given.map_or(null_mut(), |next| unsafe {
            base.add(self.start(next, layout))
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same. Nothing is given twice, so that it is zero still.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    /// A string or vector that grows is copied by no good allocator while nothing lies behind it, and this one is to be a bound.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let size = layout.size();
        // What a block gives up by shrinking is given to nobody: it is not zero any more.
        if new_size <= size || self.grows(block, size, new_size) {
            return block;
        }
        // SAFETY: the caller's promise is that the new size, rounded up to the alignment, is a layout's, and that the block is of the
        // old one; it and the new one do not overlap.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, size);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_grows_where_it_is_and_another_one_is_copied() {
        static SMALL: Bump<4096> = Bump::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every block is of the layout that is said, and what is read was written or is zero by promise.
        unsafe {
            let first = SMALL.alloc(layout(8));
            first.write_bytes(7, 8);
            let grown = SMALL.realloc(first, layout(8), 64);
            assert_eq!(grown, first, "nothing lies behind it");
            assert_eq!(SMALL.realloc(grown, layout(64), 32), first);
            let second = SMALL.alloc_zeroed(layout(16));
            assert_eq!(
                second,
                first.add(64),
                "behind all that was ever the first one's"
            );
            let moved = SMALL.realloc(first, layout(32), 48);
            assert_eq!(moved, second.add(16));
            assert_eq!(std::slice::from_raw_parts(moved, 8), [7; 8]);
            assert!(
                SMALL.realloc(moved, layout(48), 4096).is_null(),
                "no more is there"
            );
            assert_eq!(
                SMALL.alloc(layout(8)),
                moved.add(48),
                "and nothing is lost by asking"
            );
        }
    }
}
