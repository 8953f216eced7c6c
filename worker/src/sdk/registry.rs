//! The named stage functions of a program.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stageline_protocol::control::{AbandonedCalls, Function};
use stageline_protocol::pipeline::{Op, Stage, TypeTag};
use stageline_protocol::text::{NOT_PLAIN, is_plain};

use super::blocking::Threads;
use super::context::Context;
use super::function::{Body, StageFunction};
use super::invoke::Invoker;
use super::name::Name;
use super::roots::Roots;
use super::{DEFAULT_MAX_PAYLOAD, DEFAULT_SLOTS};

/// The named stage functions of a program: what a worker offers to its coordinator.
///
/// Registering never fails on the spot: what is wrong is collected, told by
/// [`validate`](Self::validate), and refuses every use.
///
/// A function takes its input, or a [`Context`] and its input. Async functions run
/// [64](super::DEFAULT_SLOTS) items at a time in a process, blocking ones (`blocking_*`) as many as it
/// has cores; [`slots`](Self::slots) says otherwise. Fallible ones (`try_*`) answer with a `Result` whose
/// error is a [`StageError`](super::StageError), which `?` makes of any other.
///
/// ```
/// use futures_util::stream;
/// use stageline_worker::sdk::{Context, Registry, Sink, Source, Stage, StageError};
///
/// const NUMBERS: Source<u64> = Source::named("numbers");
/// const HALVE: Stage<u64, u64> = Stage::named("halve");
/// const PRINT: Sink<u64> = Sink::named("print");
///
/// let registry = Registry::new()
///     .source(NUMBERS, |from: u64| stream::iter(from..1000))
///     .filter("is-even", |n: u64| async move { n % 2 == 0 })
///     .try_map(HALVE, |cx: Context, n: u64| async move {
///         if n % 2 == 1 {
///             return Err(StageError::msg(format_args!("item {}: odd", cx.lineage())).permanent());
///         }
///         Ok(n / 2)
///     })
///     .slots(8)
///     .blocking_map("factors", |n: u64| (1..=n).filter(|f| n % f == 0).count())
///     .flat_map_iter("below", |n: u64| async move { 0..n })
///     .for_each(PRINT, |n: u64| async move { println!("{n}") });
///
/// assert!(registry.validate().is_ok());
/// assert_eq!(registry.functions().len(), 6);
/// ```
#[derive(Clone)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    /// What `slots` and `not_replayable` speak of.
    last: Option<String>,
    mistakes: Vec<String>,
    max_payload: usize,
}

#[derive(Clone)]
struct Entry {
    function: Registered,
    slots: Option<u32>,
    input: Option<TypeTag>,
    output: Option<TypeTag>,
    replayable: bool,
    /// Of a blocking function, once it has been used; shared by all clones.
    threads: Arc<OnceLock<Threads>>,
}

#[derive(Clone)]
enum Registered {
    Ready(StageFunction),
    Parameterised(Op, Factory),
}

type Factory = Arc<dyn Fn(&Bytes) -> Result<StageFunction, String> + Send + Sync>;

/// What is wrong with a registry: all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry of stage functions is not usable: {}", .mistakes.join("; "))]
pub struct RegistryError {
    mistakes: Vec<String>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            last: None,
            mistakes: Vec::new(),
            max_payload: DEFAULT_MAX_PAYLOAD,
        }
    }
}

impl Registry {
    /// A registry without functions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items the function registered last runs at a time in one process.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        match self.last.as_ref().and_then(|name| Some((name, self.entries.get_mut(name)?))) {
            Some((name, _)) if slots == 0 => self
                .mistakes
                .push(format!("{name:?} has slots(0) and could never run: give it at least 1")),
            Some((_, entry)) => entry.slots = Some(slots),
            None => self.mistakes.push(format!(
                "slots({slots}) follows no function: put it right after the one it is for"
            )),
        }
        self
    }

    /// Keeps only the functions of these names: a worker that is to run some stages and not others.
    ///
    /// # Errors
    /// Lists the functions that there are, if there is none of one of the names.
    pub fn only<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut kept = BTreeMap::new();
        for name in names {
            match self.entries.remove_entry(name) {
                Some((name, entry)) => {
                    kept.insert(name, entry);
                }
                None if kept.contains_key(name) => {}
                None => return Err(self.unknown(name)),
            }
        }
        self.entries = kept;
        self.last = None;
        Ok(self)
    }

    fn unknown(&self, name: &str) -> String {
        let all: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        format!("no function {name:?} is registered here; there is: {}", all.join(", "))
    }

    /// Sets the slots of a function by its name, as a command line does.
    ///
    /// # Errors
    /// Lists the functions that there are, if there is none of that name, and refuses 0.
    pub fn set_slots(&mut self, name: &str, slots: u32) -> Result<(), String> {
        if slots == 0 {
            return Err(format!("{name:?} with 0 slots could never run: give it at least 1"));
        }
        match self.entries.get_mut(name) {
            Some(entry) => {
                entry.slots = Some(slots);
                Ok(())
            }
            None => Err(self.unknown(name)),
        }
    }

    /// Declares that the source registered last cannot give its roots again from a position: a job
    /// whose source is lost with its worker then fails, and says so, instead of starting it anew.
    #[must_use]
    pub fn not_replayable(mut self) -> Self {
        match self.last.as_ref().and_then(|name| self.entries.get_mut(name)) {
            Some(entry) if entry.op() == Op::Source => entry.replayable = false,
            _ => self.mistakes.push(
                "not_replayable() follows no source: put it right after the one it is for"
                    .to_owned(),
            ),
        }
        self
    }

    /// The largest payload that a function may make, in bytes; 64 MiB by default.
    #[must_use]
    pub const fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// A function that a pipeline gives settings for, of any type in and out: `factory` makes it of
    /// the settings, once for each task. The format of the settings is the function's own business;
    /// what is wrong with them is told by the error, and fails the job.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use serde_json::Value;
    /// use stageline_protocol::pipeline::Op;
    /// use stageline_worker::sdk::{Registry, StageFunction};
    ///
    /// let registry = Registry::new().parameterised("pick", Op::Map, |field: &Bytes| {
    ///     let field = String::from_utf8(field.to_vec()).map_err(|e| format!("the field: {e}"))?;
    ///     Ok(StageFunction::map(move |record: Value| {
    ///         let picked = record.get(&field).cloned().unwrap_or_default();
    ///         async move { picked }
    ///     }))
    /// });
    /// # registry.validate().unwrap();
    /// ```
    #[must_use]
    pub fn parameterised(
        self,
        name: &str,
        op: Op,
        factory: impl Fn(&Bytes) -> Result<StageFunction, String> + Send + Sync + 'static,
    ) -> Self {
        let name = Name { name: name.to_owned(), input: None, output: None };
        self.insert(name, Registered::Parameterised(op, Arc::new(factory)))
    }

    /// A function made beforehand, of any type in and out.
    #[must_use]
    pub fn function(self, name: &str, function: StageFunction) -> Self {
        self.add(Name { name: name.to_owned(), input: None, output: None }, function)
    }

    /// Adds another registry's functions. A name that both have is a mistake.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (name, entry) in other.entries {
            match self.entries.entry(name) {
                Occupied(taken) => self.mistakes.push(twice(taken.key())),
                Vacant(free) => {
                    free.insert(entry);
                }
            }
        }
        self.mistakes.extend(other.mistakes);
        self.last = None;
        self
    }

    /// Adds those of another registry's functions whose names are free here.
    #[must_use]
    pub fn with_fallback(mut self, other: Self) -> Self {
        for (name, entry) in other.entries {
            self.entries.entry(name).or_insert(entry);
        }
        self.mistakes.extend(other.mistakes);
        self.last = None;
        self
    }

    /// Whether a function of that name is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Tells what is wrong with the registry.
    ///
    /// # Errors
    /// Lists every mistake: a name that is registered twice or empty, a setting that is impossible or
    /// belongs to no function.
    pub fn validate(&self) -> Result<(), RegistryError> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        Err(RegistryError { mistakes: self.mistakes.clone() })
    }

    /// The functions as a worker announces them, by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        self.entries
            .iter()
            .map(|(name, entry)| Function {
                name: name.clone(),
                op: entry.op(),
                slots: entry.slots(),
                input: entry.input.clone(),
                output: entry.output.clone(),
                replayable: entry.replayable,
            })
            .collect()
    }

    /// The function of a stage that takes items, under the stage's policies.
    ///
    /// # Errors
    /// Says why the stage cannot run here: its function is not registered, is for another operator or
    /// other types, or does not accept the settings.
    pub fn invoker(&self, stage: &Stage) -> Result<Invoker, String> {
        match self.resolve(stage)?.body {
            Body::Call(call) => {
                let threads = self.threads(&stage.function);
                Ok(Invoker::new(call, threads, stage.timeout, stage.retries, self.max_payload))
            }
            Body::Open(_) => Err(format!("stage {:?} is a source, and takes no items", stage.name)),
        }
    }

    /// The threads of a function: as many as it has slots, whichever tasks use them.
    fn threads(&self, function: &str) -> Threads {
        match self.entries.get(function) {
            Some(entry) => {
                entry.threads.get_or_init(|| Threads::new(function, entry.slots())).clone()
            }
            None => Threads::new(function, cores()),
        }
    }

    /// Calls of blocking functions that nobody waits for any more, and that still run.
    #[must_use]
    pub fn abandoned(&self) -> Vec<AbandonedCalls> {
        let threads = self.entries.values().filter_map(|entry| entry.threads.get());
        threads.filter_map(Threads::abandoned).collect()
    }

    /// The roots of a source stage, from a position on. A fault stands for one root, and the source
    /// goes on after it. A panic of the source passes to whoever polls the stream.
    ///
    /// # Errors
    /// Says why the stage cannot run here, as [`invoker`](Self::invoker) does; also when it has a
    /// timeout or retries, which a source cannot have.
    pub fn open_source(&self, stage: &Stage, position: u64, cx: Context) -> Result<Roots, String> {
        let Body::Open(open) = self.resolve(stage)?.body else {
            return Err(format!("stage {:?} is no source", stage.name));
        };
        if stage.timeout.is_some() || stage.retries > 0 {
            return Err(format!(
                "stage {:?} is a source, which has no timeout and no retries: give them to the \
                 stages after it",
                stage.name
            ));
        }
        Ok(open(cx, position, self.max_payload))
    }

    /// Finds and makes the function of a stage, and checks that it is the one meant.
    fn resolve(&self, stage: &Stage) -> Result<StageFunction, String> {
        self.validate().map_err(|e| e.to_string())?;
        let (name, wanted) = (&stage.name, &stage.function);
        let Some(entry) = self.entries.get(wanted) else {
            let all: Vec<&str> = self.entries.keys().map(String::as_str).collect();
            return Err(format!(
                "stage {name:?}: no function {wanted:?} is registered here; there is: {}",
                if all.is_empty() { "none".to_owned() } else { all.join(", ") }
            ));
        };
        if entry.op() != stage.op {
            return Err(format!(
                "stage {name:?} is a {}, and the function {wanted:?} is registered as a {}",
                stage.op,
                entry.op()
            ));
        }
        for (side, declared, registered) in
            [("takes", &stage.input, &entry.input), ("makes", &stage.output, &entry.output)]
        {
            if let (Some(declared), Some(registered)) = (declared, registered)
                && declared != registered
            {
                return Err(format!(
                    "stage {name:?} {side} {declared}, and the function {wanted:?} registered here \
                     {side} {registered}"
                ));
            }
        }
        match &entry.function {
            Registered::Ready(_) if !stage.params.is_empty() => Err(format!(
                "stage {name:?} has settings, and the function {wanted:?} takes none: leave them out"
            )),
            Registered::Ready(function) => Ok(function.clone()),
            Registered::Parameterised(op, factory) => {
                let function =
                    factory(&stage.params).map_err(|e| format!("stage {name:?}: {e}"))?;
                if function.op() == *op {
                    return Ok(function);
                }
                Err(format!(
                    "the function {wanted:?} is registered as a {op}, and its factory made a {}",
                    function.op()
                ))
            }
        }
    }

    pub(super) fn add(self, name: Name, function: StageFunction) -> Self {
        self.insert(name, Registered::Ready(function))
    }

    fn insert(mut self, name: Name, function: Registered) -> Self {
        let Name { name, input, output } = name;
        if name.is_empty() {
            self.mistakes.push("a function has an empty name: give it one".to_owned());
        }
        if !is_plain(&name) {
            self.mistakes.push(format!("the name {name:?} {NOT_PLAIN}"));
        }
        if self.entries.contains_key(&name) {
            self.mistakes.push(twice(&name));
        }
        let entry = Entry {
            function,
            slots: None,
            input,
            output,
            replayable: true,
            threads: Arc::default(),
        };
        self.entries.insert(name.clone(), entry);
        self.last = Some(name);
        self
    }
}

impl Entry {
    const fn op(&self) -> Op {
        match &self.function {
            Registered::Ready(function) => function.op(),
            Registered::Parameterised(op, _) => *op,
        }
    }

    fn slots(&self) -> u32 {
        self.slots.unwrap_or_else(|| match &self.function {
            Registered::Ready(function) if function.is_blocking() => cores(),
            _ => DEFAULT_SLOTS,
        })
    }
}

fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

fn twice(name: &str) -> String {
    format!("the name {name:?} is registered twice: give one of the functions another name")
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(name, entry)| (name, entry.op()))).finish()
    }
}
