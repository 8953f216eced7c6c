//! Panics of a user's code: caught, turned into text, and disposed of.
//!
//! What was thrown is a value of the user's, and so are outputs, futures, streams and closures: to drop one may
//! panic, too. A panic that left a loop or a task of ours would take others' items with it. So whatever a user
//! wrote is run by [`caught`] and dropped by [`discard`], and neither lets a panic out.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic throws.
pub(crate) type Thrown = Box<dyn Any + Send>;

/// Runs a user's code. Answers what it threw in words.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(said)
}

/// What a panic said; what it threw is gone.
pub(crate) fn said(thrown: Thrown) -> String {
    let text = thrown.downcast_ref::<&str>().copied();
    let text = text.or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic without a message").to_owned();
    discard(thrown);
    text
}

/// Drops what a user wrote. It has failed already, or nobody waits for it: what its destructor says adds
/// nothing.
pub(crate) fn discard<T>(value: T) {
    let dropped = |thrown| catch_unwind(AssertUnwindSafe(|| drop(thrown)));
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| drop(value)))
        && let Err(again) = dropped(thrown)
    {
        // It may go on like this for ever; a leak ends it.
        mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Throws another of its kind when it is dropped, without end.
    struct Endless;

    impl Drop for Endless {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[test]
    fn a_panic_keeps_its_message() {
        let throw: [(fn(), &str); 4] = [
            (|| panic!("literal"), "literal"),
            (|| panic_any("formatted".to_owned()), "formatted"),
            (|| panic_any(5_u8), "a panic without a message"),
            (|| panic_any(Endless), "a panic without a message"),
        ];
        for (throw, message) in throw {
            assert_eq!(caught(throw), Err(message.to_owned()));
        }
    }

    #[test]
    fn nothing_panics_when_it_is_discarded() {
        discard(Endless);
        discard(Box::new(Endless));
        discard([5]);
    }
}
