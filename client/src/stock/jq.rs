//! `jq`: one jq expression, compiled once, run on each item.
//!
//! A compiled expression is immutable and shared by all threads; the values that flow through it are
//! not, so an item is decoded, run and encoded on one thread, lazily: [`Outputs`] computes an output
//! when it is asked for, and an expression with endless outputs needs no endless memory.
//!
//! Left out of the language, because a stage is not a program: `env` (a stage runs on any worker, so
//! its environment means nothing), `input` and `inputs` (there is one item), and modules. `halt` and
//! `halt_error` fail the item; they do not end the process.

use std::fmt;

use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Exn, Filter, Vars};
use jaq_json::Val;
use serde::{Deserialize, Deserializer, Serialize};

use stageline_worker::sdk::BLOCKING_STACK;

use super::{guard, value};

/// The longest expression, in bytes.
const LONGEST: usize = 16 << 10;
/// The name under which a guarded expression is compiled.
const MAIN: &str = "__main";

/// A compiled jq expression.
pub struct Jq {
    filter: Filter<JustLut<Val>>,
    expression: String,
}

impl fmt::Debug for Jq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jq").field(&self.expression).finish()
    }
}

/// A jq expression that does not compile: prints as what is wrong, and below it the line of the
/// expression with a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JqError {
    /// The whole expression.
    pub expression: String,
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start of the expression.
    pub offset: usize,
    /// The line of the expression, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
}

impl fmt::Display for JqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expression.lines().nth(self.line - 1).unwrap_or_default();
        // Tabs stay tabs in the padding, so that the caret stands below its character.
        let padding: String = text
            .chars()
            .chain(std::iter::repeat(' '))
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(
            f,
            "bad jq expression, line {}, column {}: {}\n    {text}\n    {padding}^",
            self.line, self.column, self.message
        )
    }
}

impl std::error::Error for JqError {}

/// The outputs of a compiled expression for one input, computed one by one. Not `Send`.
pub struct Outputs<'a> {
    values: Box<dyn Iterator<Item = Result<Val, String>> + 'a>,
}

impl Jq {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The first thing that is wrong with it, and where.
    pub fn compile(expression: &str) -> Result<Self, JqError> {
        if expression.len() > LONGEST {
            let message = format!("an expression has at most {LONGEST} bytes: register a function");
            return Err(at(expression, message, expression.get(..1)));
        }
        // Parsing and compiling recurse as deep as the expression is nested.
        std::thread::scope(|scope| {
            let compiles = std::thread::Builder::new()
                .name("jq compiler".to_owned())
                .stack_size(BLOCKING_STACK)
                .spawn_scoped(scope, || compile(expression));
            let compiled = compiles.ok().and_then(|thread| thread.join().ok());
            compiled.unwrap_or_else(|| {
                Err(at(expression, "it cannot be compiled here: no thread".to_owned(), None))
            })
        })
    }

    /// The expression.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Runs it on a JSON value.
    #[must_use]
    pub fn run(&self, input: serde_json::Value) -> Outputs<'_> {
        match self.run_any(input) {
            Ok(outputs) => outputs,
            Err(error) => Outputs { values: Box::new(std::iter::once(Err(error.to_string()))) },
        }
    }

    /// Runs it on a value of any self-describing format, a MessagePack payload for instance.
    ///
    /// # Errors
    /// The input does not decode.
    pub fn run_any<'de, D: Deserializer<'de>>(&self, input: D) -> Result<Outputs<'_>, D::Error> {
        Ok(self.run_value(Input(value::from(input)?)))
    }

    /// Runs it on a value that has been read.
    pub(super) fn run_value(&self, Input(input): Input) -> Outputs<'_> {
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        let outputs = self.filter.id.run((context, input));
        let mut failed = false;
        // What comes after an error is undefined in jq: the first error is the last output.
        let values = outputs.map(|output| output.map_err(describe)).take_while(move |output| {
            let go_on = !failed;
            failed |= output.is_err();
            go_on
        });
        Outputs { values: Box::new(values) }
    }
}

/// A value for an expression, read from any self-describing format. It stays on its thread.
pub(super) struct Input(Val);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        value::from(deserializer).map(Self)
    }
}

fn compile(expression: &str) -> Result<Jq, JqError> {
    let defs = || jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let funs = || {
        let all = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        all.filter(|(name, ..)| *name != "env")
    };
    let file = |code| File { code, path: () };
    // As it stands first: what is wrong is told with its place in the text.
    let arena = Arena::default();
    let modules = Loader::new(defs())
        .load(&arena, file(expression))
        .map_err(|errors| load_error(expression, errors))?;
    let _plain: Filter<JustLut<Val>> = Compiler::default()
        .with_funs(funs())
        .compile(modules)
        .map_err(|errors| undefined(expression, errors))?;

    let Some(term) = load::parse(expression, |parser| parser.term()) else {
        return Err(at(expression, "not a jq expression".to_owned(), None));
    };
    let main = Def { name: MAIN, args: Vec::new(), body: guard::guard(term) };
    let defs = guard::library(defs()).into_iter().chain([main]);
    let modules =
        Loader::new(defs).load(&arena, file(MAIN)).map_err(|errors| load_error(MAIN, errors))?;
    let filter = Compiler::default()
        .with_funs(guard::natives(funs()))
        .compile(modules)
        .map_err(|errors| undefined(MAIN, errors))?;
    Ok(Jq { filter, expression: expression.to_owned() })
}

impl Iterator for Outputs<'_> {
    type Item = Result<Output, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.values.next().map(|output| output.map(Output))
    }
}

/// One output: serialises into any format.
#[derive(Clone, Debug)]
pub struct Output(Val);

impl Output {
    /// It as a JSON value.
    ///
    /// # Errors
    /// It has no JSON form: a record with a key that is not text.
    pub fn to_json(&self) -> Result<serde_json::Value, String> {
        serde_json::to_value(self).map_err(|error| error.to_string())
    }
}

impl Serialize for Output {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        value::Out(&self.0, 0).serialize(serializer)
    }
}

/// An error of a run in words. An input's text may be long, and the error quotes it: it is cut.
fn describe(exception: Exn<'_, Val>) -> String {
    const LONGEST: usize = 1000;
    let message = match exception.get_err().map(jaq_core::Error::into_val) {
        Ok(Val::TStr(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(value) => value.to_string(),
        Err(exception) => match exception.get_halt() {
            Ok(_) => "`halt` has no meaning in a stage; use `error` or `empty`".to_owned(),
            Err(_) => "`break` without its label".to_owned(),
        },
    };
    match message.char_indices().nth(LONGEST) {
        None => message,
        Some((end, _)) => format!("{}…", &message[..end]),
    }
}

fn load_error(expression: &str, errors: load::Errors<&str, ()>) -> JqError {
    let first = errors.into_iter().next().map(|(_, error)| error);
    let (message, place) = match first {
        Some(load::Error::Lex(errors)) => match errors.into_iter().next() {
            Some((expected, found)) => (format!("expected {}", lexical(&expected)), Some(found)),
            None => ("not a jq expression".to_owned(), None),
        },
        Some(load::Error::Parse(errors)) => match errors.into_iter().next() {
            Some((expected, found)) => {
                let message = if found.is_empty() {
                    format!("expected {}, and the expression ends", expected.as_str())
                } else {
                    format!("expected {}, found {found:?}", expected.as_str())
                };
                (message, Some(found))
            }
            None => ("not a jq expression".to_owned(), None),
        },
        Some(load::Error::Io(errors)) => {
            let place = errors.first().map(|(place, _)| *place);
            ("modules cannot be imported or included by a stage".to_owned(), place)
        }
        None => ("not a jq expression".to_owned(), None),
    };
    at(expression, message, place)
}

fn lexical(expected: &load::lex::Expect<&str>) -> &'static str {
    use load::lex::Expect;
    match expected {
        // The only delimiters that jaq's own text covers; any other makes it panic.
        Expect::Delim("(" | "[" | "{" | "\"") | Expect::Digit | Expect::Ident => expected.as_str(),
        Expect::Escape | Expect::Unicode => expected.as_str(),
        Expect::Delim(_) => "a closing delimiter",
        _ => "a jq token",
    }
}

fn undefined(expression: &str, errors: jaq_core::compile::Errors<&str, ()>) -> JqError {
    let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
    let Some((name, kind)) = first else {
        return at(expression, "not a jq expression".to_owned(), None);
    };
    let message = match (name, &kind) {
        ("env" | "$ENV" | "input" | "inputs", _) => {
            format!("`{name}` has no meaning in a stage, which runs on one item on any worker")
        }
        (_, jaq_core::compile::Undefined::Filter(0)) => format!("there is no function `{name}`"),
        (_, jaq_core::compile::Undefined::Filter(arity)) => {
            format!("there is no function `{name}` of {arity} parameters")
        }
        _ => format!("there is no {} `{name}`", kind.as_str()),
    };
    at(expression, message, Some(name))
}

/// `place` is a part of `expression`; none, or one that is not, stands for its end.
fn at(expression: &str, message: String, place: Option<&str>) -> JqError {
    let start = expression.as_ptr() as usize;
    let offset = place
        .and_then(|part| (part.as_ptr() as usize).checked_sub(start))
        .filter(|offset| expression.is_char_boundary(*offset))
        .unwrap_or(expression.len());
    let before = &expression[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    JqError {
        expression: expression.to_owned(),
        message,
        offset,
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(expression: &str, input: Value) -> Result<Vec<Value>, String> {
        let jq = Jq::compile(expression).map_err(|error| error.to_string())?;
        jq.run(input).map(|output| output?.to_json()).collect()
    }

    #[test]
    fn an_expression_makes_any_number_of_outputs() {
        assert_eq!(run(".a + 1", json!({"a": 1})), Ok(vec![json!(2)]));
        assert_eq!(run(".[]", json!([1, "b", null])), Ok(vec![json!(1), json!("b"), json!(null)]));
        assert_eq!(run("select(. > 3)", json!(2)), Ok(vec![]));
        assert_eq!(run("[scan(\"b+\")] | length", json!("abbab")), Ok(vec![json!(2)]));
    }

    #[test]
    fn outputs_are_computed_when_they_are_asked_for() {
        let jq = Jq::compile("range(infinite)").expect("compiles");
        let first: Vec<Value> =
            jq.run(json!(null)).take(3).map(|o| o.unwrap().to_json().unwrap()).collect();
        assert_eq!(first, [json!(0), json!(1), json!(2)]);
    }

    #[test]
    fn one_compiled_expression_serves_all_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        let jq = Jq::compile(". * 2").expect("compiles");
        shared(&jq);
        std::thread::scope(|threads| {
            for n in 0..4 {
                let jq = &jq;
                threads.spawn(move || {
                    let output = jq.run(json!(n)).next().unwrap().unwrap().to_json();
                    assert_eq!(output, Ok(json!(2 * n)));
                });
            }
        });
    }

    #[test]
    fn the_first_error_is_the_last_output() {
        let jq = Jq::compile("1, error(\"no\"), 2").expect("compiles");
        let outputs: Vec<_> =
            jq.run(json!(null)).map(|output| output.and_then(|o| o.to_json())).collect();
        assert_eq!(outputs, [Ok(json!(1)), Err("no".to_owned())]);
        assert_eq!(run(".a", json!(1)), Err("cannot index 1 with \"a\"".to_owned()));
        assert!(run("halt_error", json!("x")).unwrap_err().contains("halt"));
    }

    #[test]
    fn a_long_input_is_not_repeated_in_whole_by_its_error() {
        let error = run(".a", json!("é".repeat(5000))).unwrap_err();
        assert_eq!(error.chars().count(), 1001, "{error}");
    }

    #[test]
    fn numbers_keep_their_worth() {
        for number in [json!(0), json!(-7), json!(1.5), json!(u64::MAX), json!(i64::MIN)] {
            assert_eq!(run(".", number.clone()), Ok(vec![number]));
        }
        assert_eq!(
            run(". * 10", json!(u64::MAX)),
            Ok(vec![json!(184_467_440_737_095_516_150_f64)])
        );
        assert_eq!(run("nan", json!(null)), Ok(vec![json!(null)]));
        assert_eq!(run("1.25", json!(null)), Ok(vec![json!(1.25)]));
    }

    #[test]
    fn a_number_beyond_all_range_is_an_error_that_names_it() {
        for text in ["1e400", "[{\"a\": -1e400}]"] {
            let error = run("fromjson", json!(text)).unwrap_err();
            assert!(error.contains("1e400 is beyond the range"), "{error}");
        }
        assert!(run("1e400", json!(null)).unwrap_err().contains("1e400"));
        let error = run("fromjson", json!("7".repeat(400))).unwrap_err();
        assert!(error.contains("777…") && error.len() < 200, "{error}");
        // What jq makes infinite itself has no form in JSON.
        assert_eq!(run("infinite", json!(null)), Ok(vec![json!(null)]));
        assert_eq!(run("fromjson", json!("1e-400")), Ok(vec![json!(0.0)]));
    }

    #[test]
    fn bytes_of_a_messagepack_payload_stay_bytes() {
        let payload = [0xc4, 2, 0xff, 0]; // "bin 8" of two bytes
        let jq = Jq::compile(".").expect("compiles");
        let mut input = rmp_serde::Deserializer::from_read_ref(&payload);
        let output = jq.run_any(&mut input).expect("decodes").next().unwrap().unwrap();
        assert_eq!(rmp_serde::to_vec_named(&output).expect("encodes"), payload);
    }

    #[test]
    fn a_key_that_is_not_text_is_an_error_that_says_so() {
        assert!(run("{(1): 2}", json!(null)).unwrap_err().contains("tostring"));
    }

    #[test]
    fn a_bad_expression_is_shown_with_the_place() {
        let shown = |expression: &str| Jq::compile(expression).unwrap_err().to_string();
        assert_eq!(
            shown(".a | nosuch(1)"),
            "bad jq expression, line 1, column 6: there is no function `nosuch` of 1 parameters\n    \
             .a | nosuch(1)\n         ^"
        );
        assert_eq!(
            shown(".a\n\t| $x"),
            "bad jq expression, line 2, column 4: there is no variable `$x`\n    \t| $x\n    \t  ^"
        );
        assert_eq!(
            shown("if . then 1"),
            "bad jq expression, line 1, column 12: expected else or end, and the expression ends\n    \
             if . then 1\n               ^"
        );
        assert_eq!(
            shown(".a ] | 2"),
            "bad jq expression, line 1, column 4: expected a jq token\n    .a ] | 2\n       ^"
        );
        assert!(shown("(.a").contains("closing parenthesis"), "{}", shown("(.a"));
        assert!(shown("").contains("line 1, column 1"), "{}", shown(""));
        assert!(shown("env").contains("has no meaning in a stage"), "{}", shown("env"));
        assert!(
            shown("import \"a\" as a; .").contains("modules"),
            "{}",
            shown("import \"a\" as a; .")
        );
    }
}
