//! The requests that move a device to another host, and those that tell what it writes meanwhile.

use palisade_units::{Gpa, PAGE_BYTES};
use zerocopy::{FromBytes, IntoBytes};

use super::{Client, ClientError};
use crate::wire::{
    Command, DeviceState, Feature, FeatureFlags, FeatureRequest, LoggingControl, LoggingRange,
    LoggingReport, MAX_DATA_BYTES, Methods, MigrationData, MigrationFlags, MigrationState,
    MigrationSupport,
};

/// How many pages one report tells at most: as many bits as fit into one message.
const REPORT_PAGES: u64 = MAX_DATA_BYTES as u64 * 8;

impl Client {
    /// Whether the server has a feature, with these methods.
    ///
    /// # Errors
    /// As [`Client::region_read`]; ENOTTY where there is no such feature, EINVAL where it has other
    /// methods.
    pub fn probe_feature(&mut self, feature: Feature, methods: Methods) -> Result<(), ClientError> {
        self.feature(feature, Methods::PROBE | methods, &[], 0)
            .map(|_| ())
    }

    /// What the server offers of migration, beside RUNNING and ERROR.
    ///
    /// # Errors
    /// As [`Client::region_read`]; ENOTTY where the function cannot migrate.
    pub fn migration_features(&mut self) -> Result<MigrationFlags, ClientError> {
        let support = self.get::<MigrationSupport>(Feature::Migration)?;
        // What other servers add is not known here, and so is of no use.
        Ok(MigrationFlags::from_bits_truncate(support.flags.get()))
    }

    /// The state of migration.
    ///
    /// # Errors
    /// As [`Client::migration_features`].
    pub fn device_state(&mut self) -> Result<DeviceState, ClientError> {
        let state = self.get::<MigrationState>(Feature::DeviceState)?;
        DeviceState::from_raw(state.state.get()).ok_or(ClientError::Answer(Command::DeviceFeature))
    }

    /// Brings the device to a state of migration, by others if need be.
    ///
    /// # Errors
    /// As [`Client::migration_features`]. Where the server refuses, [`Client::device_state`] says how far it
    /// came.
    pub fn set_device_state(&mut self, state: DeviceState) -> Result<(), ClientError> {
        let state = MigrationState {
            state: state.raw().into(),
            data_fd: 0.into(),
        };
        let data = state.as_bytes();
        self.feature(Feature::DeviceState, Methods::SET, data, data.len())
            .map(|_| ())
    }

    /// Reads the whole state of a device in STOP_COPY, or what of it was not read yet.
    ///
    /// # Errors
    /// As [`Client::region_read`]; [`ClientError::StateTooLong`] for one of more than `max_len_bytes`.
    pub fn read_state(&mut self, max_len_bytes: usize) -> Result<Vec<u8>, ClientError> {
        let wanted = self.piece_bytes();
        let mut state = Vec::new();
        loop {
            let request = MigrationData {
                argsz: (MigrationData::ARGSZ + wanted).into(),
                size: wanted.into(),
            };
            let command = Command::MigrationDataRead;
            let answer = self.link.request(command, &[request.as_bytes()], &[])?;
            let (reply, piece) = MigrationData::read_from_prefix(&answer[..])
                .map_err(|_| ClientError::Answer(command))?;
            let size = reply.size.get();
            if size > wanted || piece.len() != size as usize {
                return Err(ClientError::Answer(command));
            }
            if piece.len() > max_len_bytes - state.len() {
                return Err(ClientError::StateTooLong(max_len_bytes));
            }
            state.extend_from_slice(piece);
            // Less than what was asked for is the end; nothing at all always is.
            if size < wanted {
                return Ok(state);
            }
        }
    }

    /// Writes a state, or the next part of one, to a device in RESUMING. It is judged when the device leaves that.
    ///
    /// # Errors
    /// As [`Client::region_read`]; ENOSPC for more than any state has.
    pub fn write_state(&mut self, state: &[u8]) -> Result<(), ClientError> {
        let most = self.piece_bytes() as usize;
        for piece in state.chunks(most) {
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let request = MigrationData {
                argsz: (MigrationData::ARGSZ + size).into(),
                size: size.into(),
            };
            let parts = [request.as_bytes(), piece];
            self.tell(Command::MigrationDataWrite, &parts, &[])?;
        }
        Ok(())
    }

    /// How much of a state goes into one message.
    fn piece_bytes(&self) -> u32 {
        let limit = self.server.capabilities.max_data_bytes;
        u32::try_from(limit)
            .unwrap_or(MAX_DATA_BYTES)
            .min(MAX_DATA_BYTES)
    }

    /// Has the device's writes logged, by pages of about `page_bytes`: to some ranges, each a start and a length in
    /// bytes, or to all addresses where there are none. Returns the size of the pages that the server chose.
    ///
    /// # Errors
    /// As [`Client::region_read`]; ENOTTY where writes cannot be logged.
    pub fn start_dma_logging(
        &mut self,
        page_bytes: u64,
        ranges: &[(Gpa, u64)],
    ) -> Result<u64, ClientError> {
        let control = LoggingControl {
            page_bytes: page_bytes.into(),
            ranges: u32::try_from(ranges.len()).unwrap_or(u32::MAX).into(),
            reserved: 0.into(),
        };
        let mut data = control.as_bytes().to_vec();
        for (at, len_bytes) in ranges {
            let range = LoggingRange {
                address: at.get().into(),
                len_bytes: (*len_bytes).into(),
            };
            data.extend_from_slice(range.as_bytes());
        }
        let answer = self.feature(Feature::LoggingStart, Methods::SET, &data, data.len())?;
        let control = LoggingControl::read_from_prefix(&answer[..]);
        let (control, _) = control.map_err(|_| ClientError::Answer(Command::DeviceFeature))?;
        Ok(control.page_bytes.get())
    }

    /// Ends the log.
    ///
    /// # Errors
    /// As [`Client::start_dma_logging`].
    pub fn stop_dma_logging(&mut self) -> Result<(), ClientError> {
        self.feature(Feature::LoggingStop, Methods::SET, &[], 0)
            .map(|_| ())
    }

    /// Takes out of the log the pages of 4 KiB in a range that the device has written, in their order. They
    /// are to be copied after this, not before.
    ///
    /// # Errors
    /// As [`Client::start_dma_logging`]; EINVAL where nothing is logged, or the range is not made of such
    /// pages. After any error all pages of the range count as written.
    pub fn dirty_pages(&mut self, at: Gpa, len_bytes: u64) -> Result<Vec<Gpa>, ClientError> {
        let mut written = Vec::new();
        let mut done = 0;
        loop {
            let start = Gpa::new(at.get().wrapping_add(done));
            let part = (len_bytes - done).min(REPORT_PAGES * PAGE_BYTES);
            let bitmap = self.dirty_bitmap(start, part)?;
            let bits = bitmap.iter().zip(0_u64..).flat_map(|(byte, index)| {
                let is_set = move |bit: &u64| byte >> bit & 1 == 1;
                (0..8).filter(is_set).map(move |bit| index * 8 + bit)
            });
            // A server may take a range that there is not.
            written.extend(bits.filter_map(|page| start.checked_add(page * PAGE_BYTES)));
            done += part;
            if done == len_bytes {
                return Ok(written);
            }
        }
    }

    fn dirty_bitmap(&mut self, at: Gpa, len_bytes: u64) -> Result<Vec<u8>, ClientError> {
        let report = LoggingReport {
            address: at.get().into(),
            len_bytes: len_bytes.into(),
            page_bytes: PAGE_BYTES.into(),
        };
        let pages = len_bytes.div_ceil(PAGE_BYTES);
        let bitmap = usize::try_from(pages.div_ceil(64) * 8).unwrap_or_default();
        let most = LoggingReport::BYTES + bitmap;
        let mut answer = self.feature(
            Feature::LoggingReport,
            Methods::GET,
            report.as_bytes(),
            most,
        )?;
        // Bits past the end would be of pages that were not asked for.
        let past_the_end = match (answer.last_chunk(), pages % 64) {
            (Some(_), 0) | (None, _) => 0,
            (Some(word), last) => u64::from_ne_bytes(*word) >> last,
        };
        let fits = answer.len() == most && past_the_end == 0;
        if !fits {
            return Err(ClientError::Answer(Command::DeviceFeature));
        }
        Ok(answer.split_off(LoggingReport::BYTES))
    }

    fn get<T: FromBytes>(&mut self, feature: Feature) -> Result<T, ClientError> {
        let answer = self.feature(feature, Methods::GET, &[], size_of::<T>())?;
        T::read_from_bytes(&answer[..]).map_err(|_| ClientError::Answer(Command::DeviceFeature))
    }

    /// Asks for something about a feature; the answer's data, of at most so many bytes.
    fn feature(
        &mut self,
        feature: Feature,
        methods: Methods,
        data: &[u8],
        most_bytes: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let command = Command::DeviceFeature;
        if data.len() > MAX_DATA_BYTES as usize {
            return Err(ClientError::Length(data.len()));
        }
        let argsz = u32::try_from(FeatureRequest::BYTES + most_bytes).unwrap_or(u32::MAX);
        let request = FeatureRequest {
            argsz: argsz.into(),
            flags: FeatureFlags::new(feature, methods).raw().into(),
        };
        let parts = [request.as_bytes(), data];
        let mut answer = self.link.request(command, &parts, &[])?;
        let fits = FeatureRequest::read_from_prefix(&answer[..])
            .is_ok_and(|(reply, data)| reply.flags == request.flags && data.len() <= most_bytes);
        if !fits {
            return Err(ClientError::Answer(command));
        }
        Ok(answer.split_off(FeatureRequest::BYTES))
    }
}
