//! Kills the server, or an ingest, at every named point and at random moments; `TRUEUP_KILLS` sets how often.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::client::{Client, Reply};
use crate::points::{self, Death};

/// Kills at random moments by default.
const RANDOM_KILLS: usize = 6;
/// Kills of one server's data; then another one starts with nothing.
const KILLS_OF_A_WORLD: usize = 30;
/// Servers at the same time.
const WORLDS_AT_ONCE: usize = 2;
/// Of the kills of a long run, one in so many is at a random moment.
const RANDOM_SHARE: usize = 5;

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// When the point is reached at work.
    Working(&'static str),
    /// When a checkpoint reaches the point.
    Checkpointing(&'static str),
    /// When the point is reached while the process starts.
    Starting(&'static str),
    /// Some milliseconds after the last start.
    Random,
}

/// Returns the kills of each world, in order. Each world begins with the point that its data reaches only once.
fn plan(random: &mut StdRng, kills: Option<u64>) -> Vec<Vec<Moment>> {
    let (first, often): (Vec<_>, Vec<_>) = points::all().into_iter().partition(|name| *name == "retention-commit");
    let starting = points::of_a_start().into_iter().map(Moment::Starting);
    let checkpointing = points::of_a_checkpoint().map(Moment::Checkpointing);
    let kinds: Vec<Moment> = often.into_iter().map(Moment::Working).chain(checkpointing).chain(starting).collect();
    let count = kills.map_or(kinds.len() + RANDOM_KILLS, |kills| kills as usize);
    let (mut moments, mut deck) = (Vec::new(), Vec::new());
    while moments.len() < count {
        let is_random = kills.is_some() && moments.len() % RANDOM_SHARE == 0;
        if deck.is_empty() {
            deck.clone_from(&kinds);
            if kills.is_none() {
                deck.extend([Moment::Random; RANDOM_KILLS]);
            }
            deck.shuffle(random);
        }
        moments.extend(if is_random { Some(Moment::Random) } else { deck.pop() });
    }
    let of_a_world = kills.map_or(count.div_ceil(WORLDS_AT_ONCE), |_| KILLS_OF_A_WORLD);
    let first: Vec<Moment> = first.into_iter().map(Moment::Working).collect();
    moments.chunks(of_a_world).map(|moments| [&first, moments].concat()).collect()
}

/// How often each moment came, and how often it did not.
#[derive(Default)]
struct Counts(BTreeMap<Moment, (usize, usize)>);

impl Counts {
    fn add(&mut self, moment: Moment, came: bool) {
        let (reached, missed) = self.0.entry(moment).or_default();
        *if came { reached } else { missed } += 1;
    }

    fn print(&self) {
        println!("{:>6} kills at", "");
        for (moment, (reached, missed)) in &self.0 {
            println!("{reached:>6} {moment:?}, not reached {missed}");
        }
        println!("{:>6} in all", self.0.values().map(|(reached, _)| reached).sum::<usize>());
    }
}

#[test]
fn no_event_is_lost_or_counted_twice_wherever_the_process_is_killed() {
    let seed = crate::seed();
    let worlds = plan(&mut StdRng::seed_from_u64(seed), crate::number("TRUEUP_KILLS"));
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..WORLDS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(moments) = worlds.get(number) else { break };
                    kill_at_each(number, moments, StdRng::seed_from_u64(seed ^ number as u64), &counts);
                }
            });
        }
    });
    let counts = counts.into_inner().expect("no world panicked");
    counts.print();
    let never: Vec<_> = counts.0.iter().filter(|(_, (reached, _))| *reached == 0).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
}

/// Kills the processes of one world at `moments`, and checks after each kill.
fn kill_at_each(world: usize, moments: &[Moment], mut random: StdRng, counts: &Mutex<Counts>) {
    let mut client = Client::new();
    for (number, moment) in moments.iter().enumerate() {
        let context = format!("world {world}, kill {number}, {moment:?}");
        let came = kill(&mut client, &mut random, *moment);
        counts.lock().expect("no world panicked").add(*moment, came);
        client.settle();
        client.check(&context);
        if number % 10 == 9 {
            client.run_and_check(false, &context);
        }
    }
    client.check_exact(&format!("world {world}, in the end"));
}

/// Kills a process at `moment`. Returns whether the moment came; otherwise the server is killed for another reason.
fn kill(client: &mut Client, random: &mut StdRng, moment: Moment) -> bool {
    let point = match moment {
        Moment::Random => return kill_after_a_while(client, random),
        Moment::Working(point) | Moment::Checkpointing(point) | Moment::Starting(point) => point,
    };
    // Some other work comes first, so that the state differs from kill to kill.
    for _ in 0..random.random_range(0..3) {
        assert_eq!(client.send(), [Reply::Status(200); 2]);
    }
    if let Moment::Starting(_) = moment {
        client.world.kill();
        client.inject(&format!("{point}:abort"));
        client.world.start_whatever_comes();
        client
            .world
            .wait_for("ready or dead", |world| world.try_get("/readyz").is_none_or(|answer| answer.status == 200));
    } else {
        client.inject(&points::with_cause(point, "abort"));
    }
    let death = match moment {
        Moment::Checkpointing(_) => points::checkpoint_to_death(client),
        _ => points::drive_to_death(client, point),
    };
    match death {
        Some(Death::Import) => true,
        Some(Death::Server) => {
            let (code, log) = client.world.end_by_itself();
            assert!(
                code.is_none() && log.contains("aborting at an injected fault") && log.contains(point),
                "{point}: {code:?} {log}"
            );
            true
        }
        None => {
            client.world.kill();
            false
        }
    }
}

/// Kills the server within a few milliseconds, at work.
fn kill_after_a_while(client: &mut Client, random: &mut StdRng) -> bool {
    let process = client.world.id().to_string();
    let patience = Duration::from_micros(random.random_range(200..40_000));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(patience);
        std::process::Command::new("kill").args(["-9", &process]).status().expect("kill runs")
    });
    while client.world.is_running() {
        if client.send().contains(&Reply::Nothing) {
            break;
        }
        match random.random_range(0..9) {
            0 => _ = client.request_run("ids", false),
            1 => _ = client.request_run("no_ids", random.random_bool(0.3)),
            2 => _ = client.request_checkpoint("live", random.random_bool(0.3)),
            3 => _ = client.compact("with_id"),
            4 => _ = client.vacuum("no_ids"),
            _ => {}
        }
    }
    assert!(killer.join().expect("the killer ends").success());
    client.world.wait_for_exit();
    true
}
