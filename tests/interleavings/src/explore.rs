//! Every order of the calls of several executions, and what must hold in all of them.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

use crate::call::{Answer, Call, DELETING, Deployment, LIVE, READY, ROLLED_BACK, Service};
use crate::learned::{Code, Ending, Invocation, Learned, Next, Point};
use crate::world::World;

/// What may kill a function that runs. It dies between two calls, so also after the last one and
/// before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Death {
    /// It is called again, as the state machine does; this often at most.
    Retried(u8),
    /// It is called no more; its execution goes on to the undo.
    GivenUp,
    /// Its execution was stopped by hand.
    ForGood,
}

/// What an execution does, as `statemachine/*.asl.json` say.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    /// Switches, and undoes what did not go live.
    Deploy(Deployment),
    /// Switches and stops there, to keep the number of states down.
    Switch(Deployment),
    /// Switches back, and undoes nothing.
    RollBack(Deployment),
    /// Deletes a candidate that an execution left behind.
    Undo(Deployment),
    /// Deletes a deployment that was live.
    CleanUp(Deployment),
}

impl Plan {
    fn deployment(self) -> Deployment {
        match self {
            Plan::Deploy(deployment)
            | Plan::Switch(deployment)
            | Plan::RollBack(deployment)
            | Plan::Undo(deployment)
            | Plan::CleanUp(deployment) => deployment,
        }
    }

    fn deletes(self) -> bool {
        !matches!(self, Plan::Switch(_) | Plan::RollBack(_))
    }

    /// `world` is how the cloud was when the execution began: what a rollback leaves is chosen then.
    fn switch(self, world: &World) -> Invocation {
        Invocation::Switch {
            deployment: self.deployment(),
            roll_back: match self {
                Plan::RollBack(target) => Some(left_for(target, world)),
                _ => None,
            },
        }
    }

    fn delete(self) -> Invocation {
        Invocation::Delete {
            deployment: self.deployment(),
            only_if_never_live: !matches!(self, Plan::CleanUp(_)),
        }
    }
}

/// What a rollback to that deployment leaves, as bits: `restore-deployment` says so before the switch.
fn left_for(target: Deployment, world: &World) -> u8 {
    let ready = (0..).zip(&world.groups).filter(|(deployment, group)| {
        *deployment > target && group.marks & READY != 0 && group.marks & DELETING == 0
    });
    ready
        .map(|(deployment, _): (Deployment, _)| deployment)
        .chain(world.default)
        .fold(0, |left, deployment| left | 1 << deployment)
}

/// What is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What it shows.
    pub name: &'static str,
    /// The cloud before.
    pub world: World,
    /// The executions.
    pub plans: Vec<Plan>,
    /// Which of them, if any, may die, and how.
    pub death: Option<(usize, Death)>,
    /// How many ModifyListener calls may fail: with and without taking effect, for now or for good.
    pub failures: u8,
    /// How often an execution that could go on may be left for another one. `None` is every order;
    /// three executions have too many, and what goes wrong between them needs few such changes.
    pub changes: Option<u8>,
    /// Whether an undo waits for the switches in flight between two of its calls, as the state
    /// machine's five seconds do. A switch needs far less from its tags to its modification.
    pub undo_waits: bool,
}

impl Scenario {
    /// No deaths, no failures.
    pub fn new(name: &'static str, world: World, plans: &[Plan]) -> Scenario {
        Scenario {
            name,
            world,
            plans: plans.to_vec(),
            death: None,
            failures: 0,
            changes: None,
            undo_waits: true,
        }
    }

    /// The same with that execution's functions dying.
    pub fn dying(self, execution: usize, death: Death) -> Scenario {
        Scenario {
            death: Some((execution, death)),
            ..self
        }
    }

    /// The same in those orders that change between executions at most that often.
    pub fn changing_at_most(self, changes: u8) -> Scenario {
        Scenario {
            changes: Some(changes),
            ..self
        }
    }

    /// The same with that many failing modifications.
    pub fn failing(self, failures: u8) -> Scenario {
        Scenario { failures, ..self }
    }
}

/// How far an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Switching(Point),
    Undoing(Point),
    /// Between two calls of the undo: the executions, as bits, that may still act on what they read.
    Waiting(u8),
    Ended(Ending),
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Execution {
    stage: Stage,
    /// What its switch said last.
    switch: Option<Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    world: World,
    executions: Vec<Execution>,
    deaths: u8,
    failures: u8,
    /// The deployments that the default action ever named, as bits.
    named: u8,
    /// Who went on last, and how often another may still go on instead; of no meaning where every
    /// order is explored.
    last: usize,
    changes: u8,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Call(usize),
    AnswerLost(usize),
    FailsBefore(usize, &'static str),
    FailsAfter(usize),
    Dies(usize),
}

impl Step {
    fn execution(self) -> usize {
        match self {
            Step::Call(execution)
            | Step::AnswerLost(execution)
            | Step::FailsBefore(execution, _)
            | Step::FailsAfter(execution)
            | Step::Dies(execution) => execution,
        }
    }
}

/// What was explored.
#[derive(Debug, Clone, Copy)]
pub struct Explored {
    /// Different states of the cloud and all executions.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Different orders from the beginning to an end. Orders that differ only in when a run reads what
    /// nobody changes count once.
    pub schedules: f64,
    /// States in which everything has ended.
    pub ends: usize,
    /// Different points that the code was seen at.
    pub points: usize,
    /// Calls that the code made for it.
    pub calls: usize,
}

/// Explores a scenario to the end.
///
/// # Errors
/// What does not hold, with the shortest schedule that leads to it.
pub fn explore(scenario: &Scenario, code: Code) -> Result<Explored, String> {
    Exploration {
        scenario,
        learned: Learned::new(code),
        seen: HashMap::new(),
        states: Vec::new(),
        came_from: Vec::new(),
        queue: VecDeque::new(),
    }
    .run()
}

/// More states than this and the scenario is too big to be explored to the end.
const MOST_STATES: usize = 400_000;

struct Exploration<'a> {
    scenario: &'a Scenario,
    learned: Learned,
    seen: HashMap<Rc<State>, usize>,
    states: Vec<Rc<State>>,
    came_from: Vec<Option<(usize, Step)>>,
    queue: VecDeque<usize>,
}

impl Exploration<'_> {
    fn run(mut self) -> Result<Explored, String> {
        let plans = self.scenario.plans.clone();
        let executions = plans
            .iter()
            .map(|plan| Execution {
                stage: match plan {
                    Plan::Deploy(_) | Plan::Switch(_) | Plan::RollBack(_) => {
                        Stage::Switching(self.learned.begin(plan.switch(&self.scenario.world)))
                    }
                    Plan::Undo(_) | Plan::CleanUp(_) => {
                        Stage::Undoing(self.learned.begin(plan.delete()))
                    }
                },
                switch: None,
            })
            .collect();
        let named = self.scenario.world.default.map_or(0, |active| 1 << active);
        self.visit(
            State {
                world: self.scenario.world.clone(),
                executions,
                deaths: match self.scenario.death {
                    None => 0,
                    Some((_, Death::Retried(times))) => times,
                    Some((_, Death::GivenUp | Death::ForGood)) => 1,
                },
                failures: self.scenario.failures,
                named,
                last: usize::MAX,
                changes: self.scenario.changes.unwrap_or_default(),
            },
            None,
        )?;
        let (mut edges, mut ends) = (Vec::new(), 0);
        while let Some(at) = self.queue.pop_front() {
            let mut next = Vec::new();
            for step in self.steps(&Rc::clone(&self.states[at])) {
                let state = self
                    .take(&Rc::clone(&self.states[at]), step)
                    .map_err(|what| self.told(what, Some((at, step))))?;
                next.push(self.visit(state, Some((at, step)))?);
            }
            if next.is_empty() {
                ends += 1;
                let state = Rc::clone(&self.states[at]);
                self.check_end(&state)
                    .map_err(|what| self.told(what, self.came_from[at]))?;
            }
            // States are taken from the queue in the order of their numbers.
            edges.push(next);
        }
        Ok(Explored {
            states: self.states.len(),
            steps: edges.iter().map(Vec::len).sum(),
            schedules: paths(&edges),
            ends,
            points: self.learned.points(),
            calls: self.learned.calls,
        })
    }

    fn visit(&mut self, state: State, from: Option<(usize, Step)>) -> Result<usize, String> {
        if let Some(known) = self.seen.get(&state) {
            return Ok(*known);
        }
        if let Err(what) = check(&state, self.scenario.failures > state.failures) {
            return Err(self.told(what, from));
        }
        if self.states.len() == MOST_STATES {
            return Err(format!("more than {MOST_STATES} states"));
        }
        let state = Rc::new(state);
        let number = self.states.len();
        self.seen.insert(Rc::clone(&state), number);
        self.states.push(state);
        self.came_from.push(from);
        self.queue.push_back(number);
        Ok(number)
    }

    fn next_call(&self, state: &State, execution: usize) -> Option<&Call> {
        let (Stage::Switching(point) | Stage::Undoing(point)) = state.executions[execution].stage
        else {
            return None;
        };
        match self.learned.next(point) {
            Next::Calls(call) => Some(call),
            Next::Ends(_) => None,
        }
    }

    /// Whether going on with that execution leaves another one that could go on as well.
    fn changes(&self, state: &State, execution: usize) -> bool {
        self.scenario.changes.is_some()
            && state.last < state.executions.len()
            && state.last != execution
            && self.next_call(state, state.last).is_some()
    }

    fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for execution in 0..state.executions.len() {
            let Some(call) = self.next_call(state, execution) else {
                continue;
            };
            if self.nobody_changes(state, execution, call) {
                // It commutes with every step of the others, so one order stands for all.
                return vec![Step::Call(execution)];
            }
            if state.changes == 0 && self.changes(state, execution) {
                continue;
            }
            steps.push(Step::Call(execution));
            if matches!(call, Call::ModifyListener(_)) && state.failures > 0 {
                steps.extend([
                    Step::FailsBefore(execution, "AccessDenied"),
                    Step::FailsBefore(execution, "InternalFailure"),
                    Step::FailsAfter(execution),
                ]);
            }
            if self.may_die(state, execution) {
                steps.push(Step::Dies(execution));
                steps.push(Step::AnswerLost(execution));
            }
        }
        steps
    }

    fn may_die(&self, state: &State, execution: usize) -> bool {
        state.deaths > 0 && self.scenario.death.is_some_and(|(who, _)| who == execution)
    }

    /// Whether a call only reads what no other execution can change any more.
    fn nobody_changes(&self, state: &State, execution: usize, call: &Call) -> bool {
        let others_delete = |wanted: Option<Deployment>| {
            (0..).zip(&self.scenario.plans).any(|(other, plan)| {
                other != execution
                    && plan.deletes()
                    && wanted.is_none_or(|deployment| plan.deployment() == deployment)
                    && !matches!(
                        state.executions[other].stage,
                        Stage::Ended(_) | Stage::Stopped
                    )
            })
        };
        match call {
            Call::ListTaskDefinitions => true,
            Call::DescribeRules => !others_delete(None),
            Call::DescribeTargetHealth(deployment)
            | Call::DescribeServices(deployment)
            | Call::DescribeTargetGroups(deployment) => !others_delete(Some(*deployment)),
            _ => false,
        }
    }

    fn take(&mut self, state: &State, step: Step) -> Result<State, String> {
        let mut state = state.clone();
        let execution = step.execution();
        let free = self
            .next_call(&state, execution)
            .is_some_and(|call| self.nobody_changes(&state, execution, call));
        if self.scenario.changes.is_some() && !free {
            if self.changes(&state, execution) {
                state.changes -= 1;
            }
            state.last = execution;
        }
        match step {
            Step::Dies(execution) => {
                state.deaths -= 1;
                self.dies(&mut state, execution);
            }
            Step::AnswerLost(execution) => {
                state.deaths -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                state.world.answer(&call);
                self.dies(&mut state, execution);
            }
            Step::Call(execution) => {
                let call = self.next_call(&state, execution).expect("a call").clone();
                let answer = state.world.answer(&call);
                self.goes_on(&mut state, execution, &call, &answer)?;
            }
            Step::FailsBefore(execution, code) => {
                state.failures -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                self.goes_on(&mut state, execution, &call, &Answer::Error(code))?;
            }
            Step::FailsAfter(execution) => {
                state.failures -= 1;
                let call = self.next_call(&state, execution).expect("a call").clone();
                state.world.answer(&call);
                let answer = Answer::Error("InternalFailure");
                self.goes_on(&mut state, execution, &call, &answer)?;
            }
        }
        if let Some(active) = state.world.default {
            state.named |= 1 << active;
        }
        self.end_waiting(&mut state);
        Ok(state)
    }

    fn dies(&mut self, state: &mut State, execution: usize) {
        let plan = self.scenario.plans[execution];
        let death = self.scenario.death.map(|(_, death)| death);
        state.executions[execution].stage = match (death, state.executions[execution].stage) {
            (Some(Death::ForGood), _) => Stage::Stopped,
            (Some(Death::GivenUp), Stage::Switching(_)) if plan.deletes() => {
                Stage::Undoing(self.learned.begin(plan.delete()))
            }
            (_, Stage::Switching(_)) => {
                Stage::Switching(self.learned.begin(plan.switch(&self.scenario.world)))
            }
            _ => Stage::Undoing(self.learned.begin(plan.delete())),
        };
        acted(state, execution);
    }

    fn goes_on(
        &mut self,
        state: &mut State,
        execution: usize,
        call: &Call,
        answer: &Answer,
    ) -> Result<(), String> {
        let plan = self.scenario.plans[execution];
        let stage = state.executions[execution].stage;
        let (Stage::Switching(point) | Stage::Undoing(point)) = stage else {
            return Err("an execution that waits has called".into());
        };
        let switches = matches!(stage, Stage::Switching(_));
        let point = self.learned.after(point, answer);
        if matches!(call, Call::DescribeTags(_) | Call::ModifyListener(_)) {
            acted(state, execution);
        }
        let ending = match self.learned.next(point) {
            Next::Calls(_) => {
                state.executions[execution].stage = match switches {
                    true => Stage::Switching(point),
                    false => Stage::Undoing(point),
                };
                return Ok(());
            }
            Next::Ends(ending) => *ending,
        };
        acted(state, execution);
        if switches {
            state.executions[execution].switch = Some(ending);
        }
        let again = |learned: &mut Learned| match switches {
            true => Stage::Switching(learned.begin(plan.switch(&self.scenario.world))),
            false => Stage::Undoing(learned.begin(plan.delete())),
        };
        state.executions[execution].stage = match ending {
            Ending::Failed("TransientError") if self.learned.met_a_failure(point) => {
                again(&mut self.learned)
            }
            Ending::Failed("TransientError" | "UnexpectedError") => {
                return Err(format!("execution {execution} fails with {ending:?}"));
            }
            Ending::Deleting => Stage::Waiting(match self.scenario.undo_waits {
                true => self.in_flight(state, execution),
                false => 0,
            }),
            Ending::Deleted => {
                let was_live = state.named & (1 << plan.deployment()) != 0;
                if was_live && !matches!(plan, Plan::CleanUp(_)) {
                    return Err(format!(
                        "deployment {} was undone after it was live",
                        plan.deployment()
                    ));
                }
                Stage::Ended(ending)
            }
            Ending::Superseded | Ending::Unhealthy | Ending::Failed(_)
                if switches && plan.deletes() =>
            {
                Stage::Undoing(self.learned.begin(plan.delete()))
            }
            _ => Stage::Ended(ending),
        };
        Ok(())
    }

    /// The switches, as bits, that may still modify the listener by what they read before.
    fn in_flight(&self, state: &State, but: usize) -> u8 {
        (0..state.executions.len())
            .filter(|other| *other != but)
            .filter(|other| match state.executions[*other].stage {
                Stage::Switching(point) => self.learned.acts_on_tags(point),
                _ => false,
            })
            .map(|other| 1 << other)
            .sum()
    }

    /// Goes on with the undos that have nothing to wait for any more; ECS has stopped the tasks too.
    fn end_waiting(&mut self, state: &mut State) {
        for (execution, plan) in self.scenario.plans.iter().enumerate() {
            if state.executions[execution].stage != Stage::Waiting(0) {
                continue;
            }
            let group = state.world.group_mut(plan.deployment());
            if group.service == Service::Draining {
                group.service = Service::Gone;
            }
            state.executions[execution].stage = Stage::Undoing(self.learned.begin(plan.delete()));
        }
    }

    fn check_end(&self, state: &State) -> Result<(), String> {
        let mut stopped = false;
        for execution in &state.executions {
            match execution.stage {
                Stage::Ended(_) => (),
                Stage::Stopped => stopped = true,
                stage => return Err(format!("an execution hangs: {stage:?}")),
            }
        }
        let world = &state.world;
        let given_up =
            matches!(self.scenario.death, Some((_, Death::GivenUp))) && state.deaths == 0;
        // Who was refused for good between overwriting another's switch and putting it right cannot do so.
        let refused = state
            .executions
            .iter()
            .any(|execution| matches!(execution.switch, Some(Ending::Failed(_))));
        if stopped || given_up {
            // The next switch puts right what these may leave; that nobody is cut off was checked.
            return Ok(());
        }
        let newest = (0..)
            .zip(&world.groups)
            .filter(|(_, group)| {
                group.healthy()
                    && group.marks & READY != 0
                    && group.marks & (ROLLED_BACK | DELETING) == 0
            })
            .map(|(deployment, _): (Deployment, _)| deployment)
            .max();
        if newest != world.default && !refused {
            return Err(format!(
                "the end is {:?}, the newest ready one {newest:?}",
                world.default
            ));
        }
        let Some(active) = world.default else {
            return Ok(());
        };
        if world.group(active).marks & (DELETING | ROLLED_BACK) != 0 {
            return Err(format!("{active} is active and taken back"));
        }
        if world.group(active).marks & LIVE == 0 {
            return Err(format!("{active} is active and not marked as live"));
        }
        for (plan, execution) in self.scenario.plans.iter().zip(&state.executions) {
            let own = plan.deployment();
            let live = matches!(
                execution.stage,
                Stage::Ended(Ending::Switched | Ending::Failed("DeploymentActiveError"))
            );
            let taken_back =
                |deployment: Deployment| world.group(deployment).marks & ROLLED_BACK != 0;
            let newer = active > own
                || (own + 1..)
                    .zip(&world.groups[usize::from(own) + 1..])
                    .any(|(d, _)| taken_back(d));
            if live && !newer && active != own && !taken_back(own) && !refused {
                return Err(format!("{own} said to be live, but {active} is active"));
            }
            if execution.switch == Some(Ending::Superseded) && !live && !newer {
                return Err(format!(
                    "{own} said to be superseded, but {active} is active"
                ));
            }
            let switches = !matches!(plan, Plan::CleanUp(_) | Plan::Undo(_));
            if active == own && !live && !refused && switches {
                return Err(format!(
                    "{own} is active, but ended as {:?}",
                    execution.stage
                ));
            }
        }
        Ok(())
    }

    /// What does not hold, and how it came to that.
    fn told(&self, what: String, from: Option<(usize, Step)>) -> String {
        let mut path = Vec::new();
        let mut at = from;
        while let Some((state, step)) = at {
            path.push((state, step));
            at = self.came_from[state];
        }
        let mut told = format!("{}: {what}\n", self.scenario.name);
        for (number, (state, step)) in path.into_iter().rev().enumerate() {
            let state = &self.states[state];
            let execution = step.execution();
            let plan = self.scenario.plans[execution];
            let call = self.next_call(state, execution);
            let answer = call.map(|call| state.world.clone().answer(call));
            let (call, answer) = match (call, answer) {
                (Some(call), Some(answer)) => (format!("{call:?}"), format!("{answer:?}")),
                _ => Default::default(),
            };
            let kind = match step {
                Step::Call(_) => String::new(),
                other => format!("  {other:?}"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(told, "{:3}. {plan:?}: {call} -> {answer}{kind}", number + 1);
        }
        told
    }
}

/// Whoever waits for this execution's switch need not any more: it has acted on what it had read, or
/// never will.
fn acted(state: &mut State, execution: usize) {
    for other in &mut state.executions {
        if let Stage::Waiting(switches) = &mut other.stage {
            *switches &= !(1 << execution);
        }
    }
}

/// What must hold after every step.
fn check(state: &State, failed: bool) -> Result<(), String> {
    let Some(active) = state.world.default else {
        return Ok(());
    };
    let group = state.world.group(active);
    if !group.healthy() {
        return Err(format!(
            "the default action names {active}, which has no healthy target"
        ));
    }
    if group.rules != 0b11 {
        return Err(format!("{active} is active and lost its rules"));
    }
    // Whoever takes the mark of a failed switch back looks again right after, and puts it back.
    if group.marks & LIVE == 0 && !failed {
        return Err(format!(
            "the default action names {active}, which is not marked as live"
        ));
    }
    Ok(())
}

/// How many paths lead from the first state to an end. The graph has no cycles: runs only go on, and
/// deaths and failures are counted down.
fn paths(edges: &[Vec<usize>]) -> f64 {
    let mut before = vec![0usize; edges.len()];
    for next in edges.iter().flatten() {
        before[*next] += 1;
    }
    let mut ways = vec![0.0; edges.len()];
    ways[0] = 1.0;
    let (mut ready, mut ends) = (vec![0], 0.0);
    while let Some(at) = ready.pop() {
        if edges[at].is_empty() {
            ends += ways[at];
        }
        for next in &edges[at] {
            ways[*next] += ways[at];
            before[*next] -= 1;
            if before[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    ends
}
