//! The PASID authority beside allocators and a map that know less than it does.
//!
//! Ours is the public API as any room calls it: a tenant's set with a quota below the root group, the lowest
//! free number of the range, ownership checked on free, a record for each PASID, and an event for each
//! allocation, free and refusal in a log of 4,096, which the first round fills. All of that is under the
//! one lock of the authority; a look-up of the owner takes no lock. The clock of the events is `NoClock`: what a
//! real one costs comes on top, once for each event. No holds, guest PASIDs, listeners, or groups below the root
//! are in the traces. The peers keep no quota and write nothing down: `vm-allocator`'s `IdAllocator` is
//! single-threaded and gives out the lowest free id as ours does, `sharded-slab` gives out any and keeps the
//! tenant beside it, `papaya` is a map from number to tenant.
//!
//! **Churn** (`alloc_free…`): a tenant has so many PASIDs out, its whole quota; it frees 64 chosen
//! at random, then allocates 64, and so on. A figure is one free and one allocation. Which ones are
//! freed is drawn anew for each round and before the clock starts; reading the choice from memory is in
//! the figure, on both sides. `alloc_free_same_id` is the peer's best case: one id out, freed and taken
//! again. That is a sorted set of one element there, a lock taken twice and two events here, so ours is
//! about half as fast; the goal is left where it is.
//!
//! With two threads each has its own set of one authority, or its own ids of one slab, filled by the thread
//! that measures; the figure is the mean of what a pair costs each thread. The goal is four times the
//! peer's speed. It asks a namespace that the whole host shares, lowest number first, to outrun ids that the
//! threads take from shards of their own. A pair of ours takes the lock twice, and where the other thread had
//! it in between, its cache line and those behind it come over first: what one takes is printed below the
//! table, and by how much the goal is missed stands in the `ratio` column.
//!
//! **Spread** (`spread_…`): churn of ours in several situations, with the cheapest of them in the
//! peer's column, so 0.25 means four times its cost. `1_out` frees and takes one id; `1000_out` has
//! the namespace to itself; `2e20_out` has all 1,048,575 numbers out and frees any of them, so memory
//! that no cache holds is in the figure; `fragmented_alone` has 1,000 scattered numbers and asks for each new
//! one above a random place, and where nothing is free there, refused and asked again from the whole range,
//! which is in the figure; `fragmented_full` the same beside a tenant that has all other numbers.
//!
//! **Look-up** (`owner_…`): who owns a PASID, for 1,000 numbers in random order, 65,536 look-ups that
//! do not depend on each other, one thread. `papaya` with its default hasher is pinned for each look-up, as
//! a request that comes alone must; in `owner_hot_peer_best` it is pinned once for the round and hashes by a
//! single multiplication. The goal stands at both, though at the best case it may ask for less than a
//! clock cycle. In `…_of_2e20` all numbers are out and the 1,000 lie anywhere among them.
//!
//! **Ranges** (`free_range_…`): `free_range` over [0, 2^32-1] with ten ids owned, with [1, 10] in the
//! peer's column; once for the same ten ids, once for ten scattered ones while another tenant has all
//! other numbers. Allocating the ten is outside the clock, reading the clock is inside. The goal is
//! "as cheap", less a tenth for noise.

mod churn;
mod lookup;
mod ranges;
mod two_threads;

use anyhow::Result;
use palisade_benches::{Options, Output, Report, cache_line_round_trip_ns, load_average};

const VM_ALLOCATOR: &str = "vm-allocator 0.1";
const SHARDED_SLAB: &str = "sharded-slab 0.1";
const PAPAYA: &str = "papaya 0.2";

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let mut notes = vec![format!(
        "load average at the start: {:.1}",
        load_average().unwrap_or(f64::NAN)
    )];
    let mut report = Report::new("ioasid", options.effort.rounds());
    churn::compare(options.effort, &mut report)?;
    notes.push(line_note("before"));
    two_threads::compare(options.effort, &mut report)?;
    notes.push(line_note("after"));
    lookup::compare(options.effort, &mut report)?;
    churn::spread(options.effort, &mut report)?;
    ranges::compare(options.effort, &mut report)?;

    report.print(options.output)?;
    for note in notes {
        match options.output {
            Output::Table => println!("{note}"),
            Output::Json => eprintln!("{note}"),
        }
    }
    Ok(())
}

fn line_note(when: &str) -> String {
    let nanoseconds = cache_line_round_trip_ns();
    format!(
        "cache line to the other processor and back, {when} the two threads: {nanoseconds:.0} ns"
    )
}
