//! A pipeline, checked.
//!
//! [`Graph::new`] is the only way to a [`Graph`], so an illegal one cannot exist: it has no cycle,
//! every stage is reached by a source and leads to a boundary, and declared types fit. What stays
//! unknown until workers have registered, whether a function fits its stage, is checked by
//! [`Graph::check_function`] and [`Graph::check_functions`].
//!
//! A **section** is what the roots of one source pass on their way to the boundaries. It is finished
//! when the source is exhausted and all its roots are acked.

mod error;
mod nearest;

use std::collections::{BTreeMap, BTreeSet};

pub use error::GraphError;
pub use nearest::nearest;

use crate::control::Function;
use crate::ids::StageId;
use crate::lineage::MAX_STEPS;
use crate::pipeline::{Carries, Op, Pipeline, Site, Stage, TypeTag};
use crate::text::is_plain;

/// A legal pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    pipeline: Pipeline,
    order: Vec<StageId>,
    sections: Vec<Section>,
}

/// The graph between a source and the boundaries that its roots reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The source.
    pub source: StageId,
    /// Every stage that its roots pass, in topological order, source and boundaries included.
    pub stages: Vec<StageId>,
    /// Those of them where acks end: terminals and sinks.
    pub boundaries: Vec<StageId>,
}

impl Graph {
    /// Checks a pipeline.
    ///
    /// # Errors
    /// The first thing that is wrong with it, naming the stage and the remedy.
    pub fn new(pipeline: Pipeline) -> Result<Self, GraphError> {
        if pipeline.stages.is_empty() {
            return Err(GraphError::NoStages(pipeline.name));
        }
        check_names(&pipeline)?;
        check_channels(&pipeline)?;
        if !pipeline.stages.iter().any(|stage| stage.op == Op::Source) {
            return Err(GraphError::NoSource(pipeline.name));
        }
        let order = topological(&pipeline)?;
        check_depth(&pipeline, &order)?;
        for (id, stage) in pipeline.stages() {
            check_shape(&pipeline, id, stage)?;
            check_settings(stage)?;
        }
        if pipeline.max_in_flight == Some(0) {
            return Err(GraphError::NothingInFlight(pipeline.name));
        }
        let sections = sections(&pipeline, &order);
        let graph = Self { pipeline, order, sections };
        graph.check_types(&BTreeMap::new())?;
        Ok(graph)
    }

    /// The pipeline as it was declared.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The stages, each after all that feed it; of those that are free, the lowest id first.
    #[must_use]
    pub fn order(&self) -> &[StageId] {
        &self.order
    }

    /// The sections, by their source's id.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = StageId> + '_ {
        self.with_op(Op::Source)
    }

    /// The terminals.
    pub fn terminals(&self) -> impl Iterator<Item = StageId> + '_ {
        self.with_op(Op::Terminal)
    }

    fn with_op(&self, op: Op) -> impl Iterator<Item = StageId> + '_ {
        self.pipeline.stages().filter(move |(_, stage)| stage.op == op).map(|(id, _)| id)
    }

    /// Whether a registered function can run a stage: it is for the same operator, and types that
    /// both declare are equal.
    ///
    /// # Errors
    /// What does not fit. A stage that the graph does not have fits nothing and everything.
    pub fn check_function(&self, stage: StageId, function: &Function) -> Result<(), GraphError> {
        let Some(stage) = self.pipeline.stage(stage) else { return Ok(()) };
        if stage.op != function.op {
            return Err(GraphError::WrongOp {
                stage: stage.name.clone(),
                op: stage.op,
                function: function.name.clone(),
                registered: function.op,
            });
        }
        let pairs =
            [(true, &stage.input, &function.input), (false, &stage.output, &function.output)];
        for (input, declared, registered) in pairs {
            if let (Some(declared), Some(registered)) = (declared, registered)
                && declared != registered
            {
                return Err(GraphError::FunctionType {
                    stage: stage.name.clone(),
                    function: function.name.clone(),
                    input,
                    declared: declared.clone(),
                    registered: registered.clone(),
                });
            }
        }
        Ok(())
    }

    /// Whether functions fit their stages, and neighbours fit each other when the functions' types
    /// stand in where a stage declares none.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check_functions(
        &self,
        functions: &BTreeMap<StageId, &Function>,
    ) -> Result<(), GraphError> {
        for (&stage, function) in functions {
            self.check_function(stage, function)?;
        }
        self.check_types(functions)
    }

    fn check_types(&self, functions: &BTreeMap<StageId, &Function>) -> Result<(), GraphError> {
        let mut made: BTreeMap<StageId, (StageId, TypeTag)> = BTreeMap::new();
        for &id in &self.order {
            let Some(stage) = self.pipeline.stage(id) else { continue };
            let function = functions.get(&id);
            let input = stage.input.as_ref().or(function.and_then(|f| f.input.as_ref()));
            let output = stage.output.as_ref().or(function.and_then(|f| f.output.as_ref()));
            // A filter passes on what it gets: what is known about its input holds for its output.
            let mut passed = None;
            for (_, channel) in self.pipeline.inputs(id).filter(|(_, c)| c.carries == Carries::All)
            {
                let Some((maker, tag)) = made.get(&channel.from) else { continue };
                if let Some(taken) = input.filter(|taken| *taken != tag) {
                    return Err(GraphError::TypeMismatch {
                        from: self.name(*maker),
                        made: tag.clone(),
                        to: stage.name.clone(),
                        taken: taken.clone(),
                    });
                }
                passed = Some((*maker, tag.clone()));
            }
            if stage.op == Op::Filter {
                if let (Some(taken), Some(made)) = (input, output)
                    && taken != made
                {
                    return Err(GraphError::FilterConverts {
                        stage: stage.name.clone(),
                        taken: taken.clone(),
                        made: made.clone(),
                    });
                }
                if let Some(made_here) = output.or(input).map(|tag| (id, tag.clone())).or(passed) {
                    made.insert(id, made_here);
                }
            } else if let Some(output) = output {
                made.insert(id, (id, output.clone()));
            }
        }
        Ok(())
    }

    fn name(&self, stage: StageId) -> String {
        name(&self.pipeline, stage)
    }
}

fn name(pipeline: &Pipeline, stage: StageId) -> String {
    pipeline.stage(stage).map_or_else(String::new, |stage| stage.name.clone())
}

/// No path has more expansions and broadcasts than a lineage has steps.
fn check_depth(pipeline: &Pipeline, order: &[StageId]) -> Result<(), GraphError> {
    let mut depths = BTreeMap::<StageId, usize>::new();
    for &id in order {
        let Some(stage) = pipeline.stage(id) else { continue };
        let before =
            pipeline.inputs(id).filter_map(|(_, channel)| depths.get(&channel.from).copied());
        let whole =
            pipeline.outputs(id).filter(|(_, channel)| channel.carries == Carries::All).count();
        let steps = usize::from(stage.op == Op::FlatMap) + usize::from(whole > 1);
        let depth = before.max().unwrap_or(0) + steps;
        if depth > MAX_STEPS {
            return Err(GraphError::TooDeep { stage: stage.name.clone(), depth, max: MAX_STEPS });
        }
        depths.insert(id, depth);
    }
    Ok(())
}

fn check_names(pipeline: &Pipeline) -> Result<(), GraphError> {
    let of_stages = pipeline.stages().flat_map(|(_, stage)| [&stage.name, &stage.function]);
    if let Some(name) = of_stages.chain([&pipeline.name]).find(|name| !is_plain(name)) {
        return Err(GraphError::NotPlain(name.clone()));
    }
    let mut names = BTreeMap::new();
    for (id, stage) in pipeline.stages() {
        if stage.name.trim().is_empty() {
            return Err(GraphError::EmptyName(id));
        }
        if let Some(first) = names.insert(stage.name.as_str(), id) {
            return Err(GraphError::DuplicateName { name: stage.name.clone(), first, second: id });
        }
        if stage.site == Site::Fleet && stage.function.trim().is_empty() {
            return Err(GraphError::EmptyFunction { stage: stage.name.clone() });
        }
    }
    Ok(())
}

fn check_channels(pipeline: &Pipeline) -> Result<(), GraphError> {
    for (id, channel) in pipeline.channels() {
        if let Some(unknown) =
            [channel.from, channel.to].into_iter().find(|&end| pipeline.stage(end).is_none())
        {
            return Err(GraphError::UnknownStage {
                channel: id,
                from: channel.from,
                to: channel.to,
                unknown,
                stages: pipeline.stages.len(),
            });
        }
    }
    Ok(())
}

/// Kahn's algorithm; what it cannot place is a cycle, or lies behind one.
fn topological(pipeline: &Pipeline) -> Result<Vec<StageId>, GraphError> {
    let mut waiting: BTreeMap<StageId, usize> = pipeline.stages().map(|(id, _)| (id, 0)).collect();
    let mut next: BTreeMap<StageId, Vec<StageId>> = BTreeMap::new();
    for channel in &pipeline.channels {
        *waiting.entry(channel.to).or_default() += 1;
        next.entry(channel.from).or_default().push(channel.to);
    }
    let mut free: BTreeSet<StageId> =
        waiting.iter().filter(|(_, inputs)| **inputs == 0).map(|(id, _)| *id).collect();
    let mut order = Vec::with_capacity(pipeline.stages.len());
    while let Some(id) = free.pop_first() {
        waiting.remove(&id);
        order.push(id);
        for to in next.get(&id).into_iter().flatten() {
            if let Some(inputs) = waiting.get_mut(to) {
                *inputs -= 1;
                if *inputs == 0 {
                    free.insert(*to);
                }
            }
        }
    }
    if waiting.is_empty() {
        return Ok(order);
    }
    // Take away what only lies behind the cycle, so that the error names the cycle alone.
    let mut cycle: BTreeSet<StageId> = waiting.into_keys().collect();
    while let Some(&end) = cycle
        .iter()
        .find(|id| !next.get(id).is_some_and(|to| to.iter().any(|to| cycle.contains(to))))
    {
        cycle.remove(&end);
    }
    Err(GraphError::Cycle(cycle.into_iter().map(|id| name(pipeline, id)).collect()))
}

fn check_shape(pipeline: &Pipeline, id: StageId, stage: &Stage) -> Result<(), GraphError> {
    let name_of = |id| name(pipeline, id);
    let named = stage.name.clone();
    let input = pipeline.inputs(id).next();
    let mut outputs = pipeline.outputs(id).map(|(_, channel)| channel);
    match (stage.op, input) {
        (Op::Source, Some((_, channel))) => {
            return Err(GraphError::SourceWithInput { stage: named, from: name_of(channel.from) });
        }
        (Op::Source, None) | (_, Some(_)) => {}
        (_, None) => return Err(GraphError::NoInput { stage: named }),
    }
    match stage.op {
        Op::Terminal => {
            if let Some(channel) = outputs.next() {
                return Err(GraphError::TerminalWithOutput {
                    stage: named,
                    to: name_of(channel.to),
                });
            }
            if stage.site == Site::Fleet {
                return Err(GraphError::TerminalOnFleet { stage: named });
            }
        }
        Op::Sink => {
            let mut to_terminal = 0;
            for channel in outputs {
                if channel.carries == Carries::All {
                    return Err(GraphError::SinkWithOutput {
                        stage: named,
                        to: name_of(channel.to),
                    });
                }
                let to = pipeline.stage(channel.to).map(|stage| stage.op);
                to_terminal += if to == Some(Op::Terminal) { 1 } else { 2 };
            }
            if to_terminal != 1 {
                return Err(GraphError::SinkWithoutErrors { stage: named });
            }
        }
        Op::Source | Op::Map | Op::Filter | Op::FlatMap => {
            let mut leads_on = false;
            for channel in outputs {
                if channel.carries == Carries::Errors {
                    return Err(GraphError::ErrorsFromNonSink { stage: named, op: stage.op });
                }
                leads_on = true;
            }
            if !leads_on {
                return Err(GraphError::NoBoundary { stage: named });
            }
        }
    }
    Ok(())
}

fn check_settings(stage: &Stage) -> Result<(), GraphError> {
    let settings = [
        ("workers", stage.workers.is_some()),
        ("workers_per", stage.workers_per.is_some()),
        ("timeout", stage.timeout.is_some()),
        ("retry", stage.retries > 0),
    ];
    if stage.op.is_single()
        && let Some((setting, _)) = settings.into_iter().find(|(_, set)| *set)
    {
        return Err(GraphError::Meaningless { stage: stage.name.clone(), op: stage.op, setting });
    }
    let zeros = [
        ("workers", stage.workers == Some(0)),
        ("workers_per", stage.workers_per == Some(0)),
        ("timeout", stage.timeout.is_some_and(|timeout| timeout.is_zero())),
    ];
    if let Some((setting, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
        return Err(GraphError::ZeroSetting { stage: stage.name.clone(), setting });
    }
    Ok(())
}

fn sections(pipeline: &Pipeline, order: &[StageId]) -> Vec<Section> {
    let is = |id: StageId, ops: &[Op]| pipeline.stage(id).is_some_and(|s| ops.contains(&s.op));
    let sources = pipeline.stages().map(|(id, _)| id).filter(|&id| is(id, &[Op::Source]));
    sources
        .map(|source| {
            let mut reached = BTreeSet::from([source]);
            for &id in order {
                if pipeline.inputs(id).any(|(_, channel)| reached.contains(&channel.from)) {
                    reached.insert(id);
                }
            }
            let stages: Vec<_> = order.iter().copied().filter(|id| reached.contains(id)).collect();
            let boundaries =
                stages.iter().copied().filter(|&id| is(id, &[Op::Terminal, Op::Sink])).collect();
            Section { source, stages, boundaries }
        })
        .collect()
}

#[cfg(test)]
mod tests;
