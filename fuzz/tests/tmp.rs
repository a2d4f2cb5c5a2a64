#[test]
fn tmp() {
    let name = std::env::var("NAME").unwrap();
    let n: u64 = std::env::var("N").unwrap().parse().unwrap();
    let from: u64 = std::env::var("FROM").unwrap_or("0".into()).parse().unwrap();
    let t = std::time::Instant::now();
    for seed in from..from + n {
        let mut x = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        let len = 20 + (seed % 400) as usize;
        let mut bytes = vec![];
        for _ in 0..len {
            x ^= x << 13; x ^= x >> 7; x ^= x << 17;
            // Small values are frequent.
            let b = (x >> 32) as u8;
            bytes.push(if x & 7 < 3 { 0 } else { b });
        }
        std::fs::write("/tmp/w/last_input", &bytes).unwrap();
        std::fs::write("/tmp/w/last_seed", seed.to_string()).unwrap();
        palisade_fuzz_entries::run(&name, &bytes);
    }
    println!("{:?} each", t.elapsed() / n as u32);
}
