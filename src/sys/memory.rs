//! How memory is given back.

/// Lets each large buffer be a mapping of its own: it grows without being copied, and is the machine's again when it goes.
///
/// The C library begins so, but keeps buffers of up to 32 MiB for itself after the first one of their size was freed. Then
/// a few dozen webhooks of 25 MiB that grow side by side take three times their size, for good.
pub fn give_large_buffers_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a setting of the allocator, which has no safe form")]
        // SAFETY: it takes two numbers, and may be called at any time.
        let taken = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE_BUFFER) };
        if taken == 0 {
            log::debug!("the allocator decides for itself what is a large buffer");
        }
    }
}

/// Buffers of this size cost so much to fill that the system call does not show.
#[cfg(target_env = "gnu")]
const LARGE_BUFFER: i32 = 512 << 10;
