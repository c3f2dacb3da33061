//! A panic that is expected: caught, and without a message.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static EXPECTING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; whether it panicked. The panic leaves no message. What `f` changes must be whole at the
/// point of the panic.
pub(super) fn expect_panic(f: impl FnOnce()) -> bool {
    EXPECTING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    EXPECTING.set(false);
    result.is_err()
}

/// Puts a filter before the process's panic hook that keeps the caught panics of [`expect_panic`]
/// quiet. Every other panic goes on to the hook.
pub(super) fn install_panic_filter() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTING.get() {
                next(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    // Red when an expected panic gets out, or a later one is swallowed.
    #[test]
    fn only_the_expected_panic_is_kept() {
        install_panic_filter();
        assert!(!expect_panic(|| {}));
        assert!(expect_panic(|| panic!("expected")));
        assert!(!EXPECTING.get());
        assert!(
            catch_unwind(|| panic!("not expected: this message belongs into the test's output")).is_err()
        );
    }
}
