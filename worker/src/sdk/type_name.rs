//! Type names as people write them: the declared type of what a stage takes and makes.
//!
//! Two programs that share a type may have it at different paths, and the compiler's own paths are
//! not stable, so a name is compared without them: `alloc::vec::Vec<shop::Order>` is `Vec<Order>`.

use std::any::TypeId;

use serde_json::Value;
use stageline_protocol::pipeline::TypeTag;

/// The type's name without the paths of modules and crates.
pub(crate) fn short_name<T: ?Sized>() -> String {
    strip_paths(std::any::type_name::<T>())
}

/// The type as pipelines declare it. [`Value`] stands for "any type": it has no tag, and fits all.
pub(crate) fn type_tag<T: 'static>(version: u32) -> Option<TypeTag> {
    (TypeId::of::<T>() != TypeId::of::<Value>())
        .then(|| TypeTag { name: short_name::<T>(), version })
}

/// Drops, in every path, all that stands before its last `::`.
fn strip_paths(full: &str) -> String {
    let mut out = String::with_capacity(full.len());
    let mut path_starts = 0;
    let mut rest = full.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') {
            rest.next();
            out.truncate(path_starts);
        } else {
            out.push(c);
            if !(c.is_alphanumeric() || c == '_' || c == '#') {
                path_starts = out.len();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;

    struct Order;

    #[test]
    fn a_name_has_no_paths_at_any_depth() {
        assert_eq!(short_name::<Order>(), "Order");
        assert_eq!(short_name::<Vec<Order>>(), "Vec<Order>");
        assert_eq!(
            short_name::<BTreeMap<String, Option<(Order, u8)>>>(),
            "BTreeMap<String, Option<(Order, u8)>>"
        );
        assert_eq!(short_name::<[Order; 3]>(), "[Order; 3]");
        assert_eq!(short_name::<&'static [Order]>(), "&[Order]");
        assert_eq!(short_name::<u64>(), "u64");
    }

    #[test]
    fn a_json_value_is_any_type() {
        assert_eq!(type_tag::<Value>(1), None);
        assert_eq!(type_tag::<Bytes>(1), Some(TypeTag { name: "Bytes".into(), version: 1 }));
        assert_eq!(
            type_tag::<Vec<Value>>(2),
            Some(TypeTag { name: "Vec<Value>".into(), version: 2 })
        );
    }
}
