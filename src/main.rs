//! Arguments, allocator, exit code; nothing else.

use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;

use libmimalloc_sys as mimalloc;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

fn main() -> ExitCode {
    hostler::cli::main(give_back)
}

/// mimalloc. Its entry for aligned memory takes a detour for blocks of more than a kibibyte, which every request has: it is
/// asked only for what the plain one does not promise.
struct Mimalloc;

/// What every block of `mi_malloc` is aligned to, the smallest included.
const ALIGNED: usize = 8;

// SAFETY: each function hands its caller's promises on to the one of mimalloc that needs the same: blocks of at least
// `size` bytes, aligned as asked (`mi_malloc` and its kin align every block to `ALIGNED`), null when there is no memory;
// all of them may be given to `mi_free` and `mi_realloc`. None of them unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size may be asked for; the alignment of a layout is a power of two.
        unsafe {
            match layout.align() {
                ..=ALIGNED => mimalloc::mi_malloc(layout.size()).cast(),
                align => mimalloc::mi_malloc_aligned(layout.size(), align).cast(),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match layout.align() {
                ..=ALIGNED => mimalloc::mi_zalloc(layout.size()).cast(),
                align => mimalloc::mi_zalloc_aligned(layout.size(), align).cast(),
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's promise: it comes from here and is not used any more.
        unsafe { mimalloc::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: it comes from here, with this layout.
        unsafe {
            match layout.align() {
                ..=ALIGNED => mimalloc::mi_realloc(block.cast(), size).cast(),
                align => mimalloc::mi_realloc_aligned(block.cast(), size, align).cast(),
            }
        }
    }
}

/// Gives memory that was freed back to the system: of the calling thread, and of threads that have ended.
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: `mi_collect` takes no pointer and may be called at any time by any thread; memory in use is not touched.
    unsafe { mimalloc::mi_collect(true) }
}
