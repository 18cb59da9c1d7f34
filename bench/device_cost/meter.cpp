// SPDX-License-Identifier: MIT
#include "device_cost/meter.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

#include "support/cuda_fibres.hpp"

namespace bench {

namespace {

std::uint64_t mixed(std::uint64_t n) {
  n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9u;
  n = (n ^ (n >> 27)) * 0x94d049bb133111ebu;
  return n ^ (n >> 31);
}

}  // namespace

device_array::device_array(std::size_t bytes) : bytes_(bytes) {
  data_ = mmap(nullptr, std::max<std::size_t>(bytes, 1), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
}

device_array::~device_array() { munmap(data_, std::max<std::size_t>(bytes_, 1)); }

void meter::watch(const void* begin, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  pieces_.push_back({address, address + bytes});
  std::sort(pieces_.begin(), pieces_.end(), [](const piece& a, const piece& b) { return a.begin < b.begin; });
  sums_.resize(pieces_.size());
}

// Here, since a function that is itself compiled with -fsanitize=thread would be told of its own loads.
void meter::observe(support::cuda_fibres& fibres) {
  fibres.observe([this](std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where) {
    touch(address, bytes, store, where);
  });
}

void meter::reset() {
  sums_.assign(pieces_.size(), {});
  accesses_ = most_loads_ = 0;
}

void meter::begin() {
  loaded_.clear();
  stored_.clear();
  requests_.clear();
  times_.clear();
  loads_.assign(1024, 0);
  counting_ = true;
}

void meter::end() {
  counting_ = false;
  most_loads_ = std::max(most_loads_, *std::max_element(loads_.begin(), loads_.end()));
}

void meter::touch(std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where) {
  if (!counting_ || bytes == 0) return;
  auto found = std::upper_bound(pieces_.begin(), pieces_.end(), address,
                                [](std::uintptr_t a, const piece& p) { return a < p.begin; });
  if (found == pieces_.begin() || address >= (--found)->end) return;
  traffic& sum = sums_[static_cast<std::size_t>(found - pieces_.begin())];
  ++accesses_;
  support::cuda_fibres& block = support::cuda_fibres::running();
  const unsigned thread = block.thread().x;
  if (!store) ++loads_[thread];
  // The n-th time after they have met that a lane runs an instruction goes with the n-th time of the other lanes of its warp.
  const std::uint64_t what = mixed(where) + block.meetings();
  const std::uint32_t time = times_[mixed(what * 1024 + thread)]++;
  const std::uint64_t request = mixed(mixed(what * 1024 + thread / 32) + time);
  for (std::uintptr_t at = address / sector; at <= (address + bytes - 1) / sector; ++at) {
    if ((store ? stored_ : loaded_)[at]++ == 0) (store ? sum.stored : sum.loaded) += sector;
    if (requests_[mixed(request + at)]++ == 0) sum.requested += sector;
  }
}

std::uint32_t& meter::number_counts::operator[](std::uint64_t number) {
  if (2 * used_ >= slots_.size()) {
    std::vector<slot> old(2 * slots_.size());
    old.swap(slots_);
    used_ = 0;
    for (const slot& s : old)
      if (s.number != 0) (*this)[s.number] = s.count;
  }
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = mixed(number) & mask;
  while (slots_[at].number != 0 && slots_[at].number != number) at = (at + 1) & mask;
  if (slots_[at].number == 0) {
    slots_[at].number = number;
    ++used_;
  }
  return slots_[at].count;
}

void meter::number_counts::clear() {
  std::fill(slots_.begin(), slots_.end(), slot{});
  used_ = 0;
}

}  // namespace bench
