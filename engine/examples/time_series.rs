//! A time series: measurements by sensor and time, read by range, with sums of each hour and day kept beside them.
//!
//!     cargo run -p calamus-engine --example time_series [NEW DIRECTORY]
//!
//! Keys are the sensor's name, a zero byte and the time in big endian, so that a sensor's measurements stand together and in
//! order of time. A measurement and the rollups that it changes are one transaction: they never disagree.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use calamus_engine::{Batch, BatchError, Database, OpenError, ReadError, WriteError};

const RAW: &str = "raw";
/// The trees of rollups, and how many seconds each of their entries stands for.
const ROLLUPS: [(&str, u64); 2] = [("by hour", 3_600), ("by day", 86_400)];

/// Measurements in a directory.
struct Series {
    database: Database,
}

/// A measurement: seconds, and what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    time: u64,
    value: f64,
}

/// What is kept of many measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rollup {
    count: u64,
    sum: f64,
    least: f64,
    most: f64,
}

impl Rollup {
    const EMPTY: Self = Self { count: 0, sum: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        for (place, number) in [self.sum, self.least, self.most].into_iter().enumerate() {
            bytes[8 + 8 * place..16 + 8 * place].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |place: usize| f64::from_le_bytes(bytes[8 * place..8 * place + 8].try_into().expect("8 bytes"));
        let count = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        Self { count, sum: number(1), least: number(2), most: number(3) }
    }
}

fn key(sensor: &str, time: u64) -> Vec<u8> {
    let mut key = sensor.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&time.to_be_bytes());
    key
}

fn time_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(*key.last_chunk().expect("a key ends with its time"))
}

impl Series {
    fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(directory)? })
    }

    /// Stores measurements of a sensor and what they change of the rollups: all of it or nothing.
    fn record(&self, sensor: &str, samples: &[Sample]) -> Result<(), WriteError> {
        let written = self.database.write(|txn| {
            txn.create_tree(RAW)?;
            for (tree, _) in ROLLUPS {
                txn.create_tree(tree)?;
            }
            samples.iter().try_for_each(|sample| Self::record_one(txn, sensor, *sample))
        });
        written.map(drop)
    }

    fn record_one(txn: &mut Batch, sensor: &str, sample: Sample) -> Result<(), BatchError> {
        txn.put(RAW, &key(sensor, sample.time), &sample.value.to_le_bytes())?;
        for (tree, seconds) in ROLLUPS {
            let key = key(sensor, sample.time / seconds * seconds);
            let mut rollup = match txn.get(tree, &key)? {
                Some(entry) => Rollup::decode(&entry.value.to_vec()?),
                None => Rollup::EMPTY,
            };
            rollup.add(sample.value);
            txn.put(tree, &key, &rollup.encode())?;
        }
        Ok(())
    }

    /// What a tree has of a sensor in a range of time, in order.
    fn range<T>(
        &self,
        tree: &str,
        sensor: &str,
        times: Range<u64>,
        decode: impl Fn(u64, &[u8]) -> T,
    ) -> Result<Vec<T>, ReadError> {
        let snapshot = self.database.read();
        let mut found = Vec::new();
        let Some(mut cursor) = snapshot.cursor(tree)? else { return Ok(found) };
        let end = key(sensor, times.end);
        let mut there = cursor.seek(&key(sensor, times.start))?;
        while there && cursor.key() < end.as_slice() {
            let value = cursor.value();
            // Small values stand in the page, and are read where they stand.
            let bytes = value.as_slice().expect("a value of a few bytes stands in a leaf");
            found.push(decode(time_of(cursor.key()), bytes));
            there = cursor.next()?;
        }
        Ok(found)
    }

    fn samples(&self, sensor: &str, times: Range<u64>) -> Result<Vec<Sample>, ReadError> {
        self.range(RAW, sensor, times, |time, bytes| Sample {
            time,
            value: f64::from_le_bytes(bytes.try_into().expect("a measurement has 8 bytes")),
        })
    }

    fn rollups(&self, tree: &str, sensor: &str, times: Range<u64>) -> Result<Vec<(u64, Rollup)>, ReadError> {
        self.range(tree, sensor, times, |time, bytes| (time, Rollup::decode(bytes)))
    }

    /// The newest measurement of a sensor.
    fn last(&self, sensor: &str) -> Result<Option<Sample>, ReadError> {
        let snapshot = self.database.read();
        let Some(mut cursor) = snapshot.cursor(RAW)? else { return Ok(None) };
        if !cursor.seek_back(&key(sensor, u64::MAX))? || !cursor.key().starts_with(&key(sensor, 0)[..=sensor.len()]) {
            return Ok(None);
        }
        let value = cursor.value().to_vec()?;
        let value = f64::from_le_bytes(value.try_into().expect("a measurement has 8 bytes"));
        Ok(Some(Sample { time: time_of(cursor.key()), value }))
    }

    /// Forgets the measurements of a sensor before a time. The rollups stay.
    fn forget_before(&self, sensor: &str, time: u64) -> Result<(), WriteError> {
        use std::ops::Bound::{Excluded, Included};
        let (start, end) = (key(sensor, 0), key(sensor, time));
        let written = self.database.write(|txn| txn.delete_range(RAW, Included(&start), Excluded(&end)).map(drop));
        written.map(drop)
    }
}

/// A warm day and a cold night, one measurement a minute.
fn temperature(time: u64) -> f64 {
    let hour = (time % 86_400) as f64 / 3_600.0;
    15.0 - 8.0 * (hour / 24.0 * std::f64::consts::TAU).cos()
}

fn run(directory: &Path) -> Result<(), Box<dyn Error>> {
    const MINUTES: u64 = 2 * 24 * 60;
    let series = Series::open(directory)?;
    let samples: Vec<Sample> =
        (0..MINUTES).map(|minute| minute * 60).map(|time| Sample { time, value: temperature(time) }).collect();
    for hour in samples.chunks(60) {
        series.record("roof", hour)?;
        series.record("cellar", &hour.iter().map(|sample| Sample { value: 11.0, ..*sample }).collect::<Vec<_>>())?;
    }

    for (time, day) in series.rollups("by day", "roof", 0..u64::MAX)? {
        println!("day {}: {:.1} to {:.1}, {:.1} on average", time / 86_400, day.least, day.most, day.mean());
        assert_eq!(day.count, 24 * 60);
    }
    let morning = 6 * 3_600..12 * 3_600;
    for (time, hour) in series.rollups("by hour", "roof", morning.clone())? {
        println!("{:02}:00: {:.1}", time / 3_600, hour.mean());
        let raw = series.samples("roof", time..time + 3_600)?;
        assert_eq!(hour.sum, raw.iter().map(|sample| sample.value).sum::<f64>(), "a rollup is the sum of its hour");
    }
    assert_eq!(series.samples("roof", morning)?.len(), 6 * 60);
    assert_eq!(series.last("cellar")?, Some(Sample { time: (MINUTES - 1) * 60, value: 11.0 }));
    assert_eq!(series.last("attic")?, None);

    series.forget_before("roof", 86_400)?;
    drop(series);
    let series = Series::open(directory)?;
    assert_eq!(series.samples("roof", 0..u64::MAX)?.first().map(|sample| sample.time), Some(86_400));
    assert_eq!(series.rollups("by day", "roof", 0..u64::MAX)?.len(), 2, "rollups outlive what they were made of");
    assert_eq!(series.samples("cellar", 0..u64::MAX)?.len() as u64, MINUTES, "another sensor keeps all of it");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(directory) => run(directory.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}

#[test]
fn it_runs() {
    run(tempfile::tempdir().unwrap().path()).unwrap();
}
