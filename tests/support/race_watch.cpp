// SPDX-License-Identifier: MIT
#include "support/race_watch.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

namespace support {

void race_watch::begin_block(bool first, unsigned block, int threads) {
  if (first) {
    cells_.clear();
    race_.clear();
  }
  block_ = block;
  threads_ = threads;
  clocks_.assign(index(threads) * index(threads), 0);
  for (int t = 0; t < threads; ++t) seen(t, t) = 1;
}

// Each knows then what all have done, and its own time goes on.
void race_watch::all_met() {
  for (int t = 0; t < threads_; ++t)
    for (int of = 0; of < threads_; ++of)
      if (of != t) seen(t, of) = seen(of, of);
  for (int t = 0; t < threads_; ++t) ++seen(t, t);
}

void race_watch::met(int first, unsigned mask) {
  std::vector<int> lanes;
  for (int n = 0; n < 32; ++n)
    if ((mask >> n & 1) != 0) lanes.push_back(first + n);
  for (int of = 0; of < threads_; ++of) {
    std::uint32_t latest = 0;
    for (const int t : lanes) latest = std::max(latest, seen(t, of));
    for (const int t : lanes) seen(t, of) = latest;
  }
  for (const int t : lanes) ++seen(t, t);
}

void race_watch::touch(int thread, std::uintptr_t address, std::size_t bytes, bool store, bool shared) {
  while (bytes > 0) {
    const std::uintptr_t at = address / 8, offset = address % 8;
    const std::size_t here = std::min(bytes, std::size_t(8) - offset);
    touch_cell(thread, at, ((1u << here) - 1u) << offset, store, shared);
    address += here;
    bytes -= here;
  }
}

void race_watch::touch_cell(int thread, std::uintptr_t at, unsigned bytes, bool store, bool shared) {
  cell& c = cells_[at];
  if (c.block != block_ || c.loads.empty()) {
    const bool old = !c.loads.empty() && !shared;
    c.stored_before = old ? c.stored_before | c.stored : 0;
    c.loaded_before = old ? c.loaded_before | c.loaded : 0;
    c.block = block_;
    c.stored = c.loaded = 0;
    c.stores.fill({});
    c.loads.assign(index(threads_), 0);
    c.bytes.assign(index(threads_), 0);
  }
  if (((c.stored_before | (store ? c.loaded_before : 0)) & bytes) != 0) report(thread, -1, at * 8, store);
  (store ? c.stored : c.loaded) |= bytes;

  const auto is_race = [&](int other, std::uint32_t time) {
    return other >= 0 && seen(thread, other) < time;
  };
  for (std::size_t n = 0; n < 8; ++n) {
    if ((bytes >> n & 1) == 0) continue;
    if (is_race(c.stores[n].thread, c.stores[n].time)) report(thread, c.stores[n].thread, at * 8 + n, store);
    if (store) c.stores[n] = {thread, seen(thread, thread)};
  }
  const std::size_t own = index(thread);
  if (!store) {
    if (c.loads[own] != seen(thread, thread)) c.bytes[own] = 0;
    c.loads[own] = seen(thread, thread);
    c.bytes[own] = static_cast<std::uint8_t>(c.bytes[own] | bytes);
    return;
  }
  for (int other = 0; other < threads_; ++other) {
    const std::size_t o = index(other);
    if ((c.bytes[o] & bytes) != 0 && is_race(other, c.loads[o])) report(thread, other, at * 8, store);
  }
}

void race_watch::report(int thread, int other, std::uintptr_t at, bool store) {
  if (!race_.empty()) return;
  race_ = "thread " + std::to_string(thread) + " of block " + std::to_string(block_) +
          (store ? " stores to " : " loads from ") + std::to_string(at) + ", and so does " +
          (other < 0 ? std::string("another block") : "thread " + std::to_string(other)) +
          ", and no barrier lies between";
}

}  // namespace support
