use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

/// What the processor calls itself, or "unknown".
#[must_use]
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    name_in(&info).unwrap_or("unknown").to_owned()
}

fn name_in(cpuinfo: &str) -> Option<&str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, name) = fields.find(|(key, _)| key.trim() == "model name")?;
    Some(name.trim())
}

/// How many programs wanted to run in the last minute. More than the bench itself: figures are rough.
#[must_use]
pub fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// How long a cache line takes to another processor and back: what any two-thread figure depends on,
/// and in a virtual machine it changes with where the host has put the processors.
#[must_use]
pub fn cache_line_round_trip_ns() -> f64 {
    const TRIPS: u32 = 20_000;
    let ball = AtomicU32::new(0);
    let wait_for = |turn: u32| {
        while ball.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for trip in 0..TRIPS {
                wait_for(2 * trip + 1);
                ball.store(2 * trip + 2, Ordering::Release);
            }
        });
        // The first trips wait for the thread to be there.
        let warm_up = TRIPS / 10;
        let mut start = Instant::now();
        for trip in 0..TRIPS {
            if trip == warm_up {
                start = Instant::now();
            }
            ball.store(2 * trip + 1, Ordering::Release);
            wait_for(2 * trip + 2);
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS - warm_up)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_it_names_itself() {
        let info = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: A (R) CPU @ 2 GHz\nflags\t: a\n";
        assert_eq!(name_in(info), Some("A (R) CPU @ 2 GHz"));
        assert_eq!(name_in("processor\t: 0\n"), None);
    }
}
