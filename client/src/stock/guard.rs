//! What keeps a jq expression from taking its process with it: no evaluation that nobody waits for goes on,
//! none recurses beyond its stack, and no value is nested so deep that to drop or compare it would.
//!
//! The expression is rewritten before it is compiled. At the head of each definition, its own and those
//! of the standard library, stands a check whether to go on; behind each thing that nests values (`[…]`,
//! `{…}`, assignments) one of how deep they are; `range` and `fromjson` are replaced by ours. The checks
//! are conditions of an `if`, which leave paths as they are and calls in tail position.
//!
//! Not reached: native code of jaq that runs for long on one value (`sort` of a huge list, a regular
//! expression over a huge text), which ends by itself, and is waited for.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::ptr;

use jaq_core::data::JustLut;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::native::{Fun, bome, v};
use jaq_core::path::{Part, Path};
use jaq_core::{Error, Exn, Native, load};
use jaq_json::Val;

/// Values are nested no deeper than this, in an expression.
pub(super) const MOST_DEPTH: usize = 1_000;
/// How often a check of the stack also asks whether somebody still waits: once in so many.
const ASKS: u32 = 64;

/// The definitions that take the place of natives.
const DEFS: &str = "def range($from; $to; $by): __range($from; $to; $by); \
                    def fromjson: if __parsable then __fromjson else . end;";

/// What one evaluation may do.
pub(super) struct Watch {
    /// The stack that it may use, in bytes.
    pub(super) stack: usize,
    /// Whether nobody waits for it any more.
    pub(super) is_over: Box<dyn Fn() -> bool>,
}

struct Watched {
    watch: Watch,
    base: usize,
}

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
    static CHECKS: Cell<u32> = const { Cell::new(0) };
}

/// Evaluates under a watch, on this thread.
pub(super) fn watched<R>(watch: Watch, evaluate: impl FnOnce() -> R) -> R {
    struct Unwatched(Option<Watched>);
    impl Drop for Unwatched {
        fn drop(&mut self) {
            WATCHED.with(|watched| *watched.borrow_mut() = self.0.take());
        }
    }
    let watched = Watched { watch, base: here() };
    let _before = Unwatched(WATCHED.with(|place| place.borrow_mut().replace(watched)));
    evaluate()
}

/// About where the stack is.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    ptr::from_ref(&local).addr()
}

/// Whether an evaluation may go on.
fn check() -> Result<(), &'static str> {
    WATCHED.with(|watched| {
        let watched = watched.borrow();
        let Some(Watched { watch, base }) = &*watched else { return Ok(()) };
        if base.abs_diff(here()) > watch.stack {
            return Err("the expression recurses too deep: it has used up its stack");
        }
        let checks = CHECKS.get().wrapping_add(1);
        CHECKS.set(checks);
        if checks.is_multiple_of(ASKS) && (watch.is_over)() {
            return Err("nobody waits for this evaluation any more");
        }
        Ok(())
    })
}

/// Whether a value is nested too deep.
fn is_deep(value: &Val) -> bool {
    let mut level = vec![value];
    let nests = |value: &&Val| matches!(value, Val::Arr(_) | Val::Obj(_));
    for _ in 0..MOST_DEPTH {
        let children: Vec<&Val> = level
            .iter()
            .flat_map(|value| -> Box<dyn Iterator<Item = &Val>> {
                match value {
                    Val::Arr(values) => Box::new(values.iter()),
                    Val::Obj(values) => {
                        Box::new(values.iter().flat_map(|(key, value)| [key, value]))
                    }
                    _ => Box::new(std::iter::empty()),
                }
            })
            .filter(nests)
            .collect();
        if children.is_empty() {
            return false;
        }
        level = children;
    }
    true
}

/// Whether a JSON text is nested too deep to be parsed. Brackets inside of texts count for nothing.
pub(super) fn is_deep_text(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn too_deep() -> Error<Val> {
    Error::str(format_args!("a value is nested more than {MOST_DEPTH} deep"))
}

/// jaq's natives, as far as they are not replaced, and ours.
pub(super) fn natives(
    natives: impl Iterator<Item = Fun<JustLut<Val>>>,
) -> impl Iterator<Item = Fun<JustLut<Val>>> {
    let theirs = natives.map(|(name, arguments, native)| match name {
        "range" if arguments.len() == 3 => ("__their_range", arguments, native),
        "fromjson" => ("__fromjson", arguments, native),
        _ => (name, arguments, native),
    });
    theirs.chain(ours())
}

fn ours() -> [Fun<JustLut<Val>>; 4] {
    [
        (
            "__alive",
            v(0),
            Native::new(|_| bome(check().map(|()| Val::Bool(true)).map_err(Error::str))),
        ),
        (
            "__shallow",
            v(0),
            Native::new(|cv| {
                bome(if is_deep(&cv.1) { Err(too_deep()) } else { Ok(Val::Bool(true)) })
            }),
        ),
        (
            "__parsable",
            v(0),
            Native::new(|cv| {
                let deep = matches!(&cv.1, Val::TStr(text) | Val::BStr(text) if is_deep_text(text));
                bome(if deep { Err(too_deep()) } else { Ok(Val::Bool(true)) })
            }),
        ),
        (
            "__range",
            v(3),
            Native::new(|mut cv| {
                let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
                Box::new(range(from, to, by))
            }),
        ),
    ]
}

/// jq's `range`: as long as it may go on.
fn range<'a>(from: Val, to: Val, by: Val) -> impl Iterator<Item = Result<Val, Exn<'a, Val>>> {
    let towards = by.partial_cmp(&Val::from(0_isize)).unwrap_or(Ordering::Equal);
    let mut next = Some(Ok(from));
    std::iter::from_fn(move || {
        let value = match next.take()? {
            Ok(value) => value,
            Err(error) => return Some(Err(Exn::from(error))),
        };
        let within = match towards {
            Ordering::Greater => value < to,
            Ordering::Less => value > to,
            Ordering::Equal => value != to,
        };
        if !within {
            return None;
        }
        if let Err(why) = check() {
            return Some(Err(Exn::from(Error::str(why))));
        }
        next = Some(value.clone() + by.clone());
        Some(Ok(value))
    })
}

/// The library's definitions, guarded, with those that take the place of natives.
pub(super) fn library<'s>(defs: impl Iterator<Item = Def<&'s str>>) -> Vec<Def<&'s str>> {
    let ours = load::parse(DEFS, |parser| parser.defs()).unwrap_or_default();
    let theirs = defs.map(|def| Def { body: alive(def.body), ..def });
    ours.into_iter().chain(theirs).collect()
}

fn call(name: &'static str) -> Term<&'static str> {
    Term::Call(name, Vec::new())
}

/// A body that is evaluated only if it may go on.
fn alive(body: Term<&str>) -> Term<&str> {
    Term::IfThenElse(vec![(call("__alive"), body)], None)
}

/// Something that nests values: an error, if they are nested too deep by it.
fn shallow(nests: Term<&str>) -> Term<&str> {
    let check = Term::IfThenElse(vec![(call("__shallow"), Term::Id)], None);
    Term::BinOp(Box::new(nests), BinaryOp::Pipe(None), Box::new(check))
}

fn boxed(term: Term<&str>) -> Box<Term<&str>> {
    Box::new(guard(term))
}

/// An expression, guarded.
pub(super) fn guard(term: Term<&str>) -> Term<&str> {
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) => term,
        Term::Str(format, parts) => {
            let parts = parts.into_iter().map(|part| match part {
                StrPart::Term(term) => StrPart::Term(guard(term)),
                other => other,
            });
            Term::Str(format, parts.collect())
        }
        Term::Arr(None) => term,
        Term::Arr(Some(inner)) => shallow(Term::Arr(Some(boxed(*inner)))),
        Term::Obj(entries) => {
            let entries = entries.into_iter().map(|(key, value)| (guard(key), value.map(guard)));
            shallow(Term::Obj(entries.collect()))
        }
        Term::Neg(inner) => Term::Neg(boxed(*inner)),
        Term::BinOp(left, op, right) => {
            let op = match op {
                BinaryOp::Pipe(pattern) => BinaryOp::Pipe(pattern.map(guard_pattern)),
                other => other,
            };
            let assigns = matches!(
                op,
                BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt
            );
            let made = Term::BinOp(boxed(*left), op, boxed(*right));
            if assigns { shallow(made) } else { made }
        }
        Term::Label(name, inner) => Term::Label(name, boxed(*inner)),
        Term::Fold(name, source, pattern, arguments) => Term::Fold(
            name,
            boxed(*source),
            guard_pattern(pattern),
            arguments.into_iter().map(guard).collect(),
        ),
        Term::TryCatch(tried, caught) => {
            Term::TryCatch(boxed(*tried), caught.map(|term| boxed(*term)))
        }
        Term::IfThenElse(branches, otherwise) => Term::IfThenElse(
            branches.into_iter().map(|(is, then)| (guard(is), guard(then))).collect(),
            otherwise.map(|term| boxed(*term)),
        ),
        Term::Def(defs, inner) => {
            let defs = defs.into_iter().map(|def| Def { body: alive(guard(def.body)), ..def });
            Term::Def(defs.collect(), boxed(*inner))
        }
        Term::Call(name, arguments) => Term::Call(name, arguments.into_iter().map(guard).collect()),
        Term::Path(inner, Path(parts)) => {
            let parts = parts.into_iter().map(|(part, optional)| {
                let part = match part {
                    Part::Index(index) => Part::Index(guard(index)),
                    Part::Range(from, to) => Part::Range(from.map(guard), to.map(guard)),
                };
                (part, optional)
            });
            Term::Path(boxed(*inner), Path(parts.collect()))
        }
    }
}

fn guard_pattern(pattern: Pattern<&str>) -> Pattern<&str> {
    match pattern {
        Pattern::Var(_) => pattern,
        Pattern::Arr(patterns) => Pattern::Arr(patterns.into_iter().map(guard_pattern).collect()),
        Pattern::Obj(entries) => Pattern::Obj(
            entries.into_iter().map(|(key, value)| (guard(key), guard_pattern(value))).collect(),
        ),
    }
}
