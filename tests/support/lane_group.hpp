// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

// A group of many lanes, as a graphics processor has them, on the host: the whole algorithm runs once per
// lane, on a stack of its own, and all that the lanes share is memory. What the lanes' barrier does is the
// team's business: emulated_group.hpp lets one of them run at a time, thread_group.hpp all at once, each on a thread.
//
// Which lane has an element: index i of for_each(n) and reduce(n) belongs to lane i % lanes. A held row is
// taken in vectors of 16 bytes, and its vector v belongs to lane v % lanes. The two differ on purpose: an
// algorithm that counts on one lane having index i throughout is wrong.

namespace support {

// An algorithm does with its group what a group of many lanes does not allow.
struct group_misuse : std::logic_error {
  using std::logic_error::logic_error;
};

// Where a held row lives. Real groups do the one for short rows and the other for long ones, and algorithms
// must not tell them apart.
enum class held_rows { in_registers, in_memory };

// One call of the group; all lanes have to make the same.
struct group_call {
  const char* name;
  std::int64_t n;
  std::size_t value_bytes;

  friend bool operator==(const group_call& a, const group_call& b) {
    return std::strcmp(a.name, b.name) == 0 && a.n == b.n && a.value_bytes == b.value_bytes;
  }
  std::string text() const;
};

// Unwinds a lane whose team has failed elsewhere.
struct lane_abandoned {};

// The lanes of one run of an algorithm: their barrier, and the memory through which they combine values.
class lane_team {
 public:
  lane_team(int lanes, held_rows rows) : lanes_(lanes), rows_(rows), slots_(2 * slots_of(lanes)) {}
  virtual ~lane_team() = default;
  lane_team(const lane_team&) = delete;

  int lanes() const { return lanes_; }
  held_rows rows() const { return rows_; }
  unsigned char* slot(int buffer, int lane) { return &slots_[slots_of(buffer * lanes_ + lane)]; }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

  virtual void arrive(int lane, const group_call&) = 0;  // the barrier
  virtual bool elect(int lane) = 0;                      // true in one lane of a phase

  static constexpr std::size_t slot_bytes = 64;

 protected:
  static constexpr group_call last_call{"the end", 0, 0};

  // Throws where this lane's call is not the one that the phase's first lane made. The caller keeps other
  // lanes out.
  void check(int lane, const group_call& call);

  int arrived_ = 0;
  std::exception_ptr error_;

 private:
  static std::size_t slots_of(int lanes) { return static_cast<std::size_t>(lanes) * slot_bytes; }

  int lanes_, first_ = 0;
  held_rows rows_;
  group_call call_{};
  std::vector<unsigned char> slots_;
};

// One lane's side of a team: what the algorithm is called with.
class lane_group {
 public:
  lane_group(lane_team& team, int lane) : team_(team), lane_(lane) {}
  lane_group(const lane_group&) = delete;

  template <class T>
  class row {
   public:
    T* data;
    std::int64_t size;

    row(row&&) noexcept = default;  // and no copy

    void store(T* out) const {
      {
        const phase in_phase(*group_, "row.store");
        std::size_t at = 0;
        group_->own_indices(size, width,
                            [&](std::int64_t i) { out[i] = in_memory() ? data[i] : own_[at++]; });
      }
      group_->team_.arrive(group_->lane_, {"row.store", size, sizeof(T)});
    }

   private:
    friend lane_group;
    static constexpr std::int64_t width = 16 / sizeof(T);

    row(const lane_group& group, T* from, std::int64_t n) : data(from), size(n), group_(&group) {
      if (!in_memory()) group.own_indices(n, width, [&](std::int64_t i) { own_.push_back(from[i]); });
    }
    bool in_memory() const { return group_->team_.rows() == held_rows::in_memory; }
    template <class F>
    void visit(F f) {
      std::size_t at = 0;
      group_->own_indices(size, width, [&](std::int64_t i) { f(in_memory() ? data[i] : own_[at++], i); });
    }
    template <class F>
    void visit(F f) const {
      std::size_t at = 0;
      group_->own_indices(size, width, [&](std::int64_t i) {
        const T value = in_memory() ? data[i] : own_[at++];
        f(value, i);
      });
    }

    const lane_group* group_;
    std::vector<T> own_;  // the lane's registers: its elements in the order of their indices
  };

  template <class F>
  void for_each(std::int64_t n, F f) const {
    {
      const phase in_phase(*this, "for_each");
      own_indices(n, 1, f);
    }
    team_.arrive(lane_, {"for_each", n, 0});
  }
  template <class T, class F, class Op>
  T reduce(std::int64_t n, T init, F f, Op op) const {
    {
      const phase in_phase(*this, "reduce");
      own_indices(n, 1, [&](std::int64_t i) { init = op(init, f(i)); });
    }
    return combine({"reduce", n, sizeof(T)}, init, op);
  }
  template <class F>
  void one_lane(F f) const {
    {
      const phase in_phase(*this, "one_lane");
      if (team_.elect(lane_)) f();
    }
    team_.arrive(lane_, {"one_lane", 1, 0});
  }
  template <class T>
  row<T> load_row(T* data, std::int64_t n) const {
    const phase in_phase(*this, "load_row");
    row<T> held(*this, data, n);
    team_.arrive(lane_, {"load_row", n, sizeof(T)});
    return held;
  }
  template <class T, class F>
  void for_each(row<T>& held, F f) const {
    {
      const phase in_phase(*this, "for_each of a row");
      held.visit(f);
    }
    team_.arrive(lane_, {"for_each of a row", held.size, sizeof(T)});
  }
  template <class T, class F, class Op>
  T reduce(const row<T>& held, T init, F f, Op op) const {
    {
      const phase in_phase(*this, "reduce of a row");
      held.visit([&](T value, std::int64_t i) { init = op(init, f(value, i)); });
    }
    return combine({"reduce of a row", held.size, sizeof(T)}, init, op);
  }
  template <class T, class F, class Op>
  T for_each_reduce(row<T>& held, F f, T init, Op op) const {
    {
      const phase in_phase(*this, "for_each_reduce of a row");
      held.visit([&](T& value, std::int64_t i) {
        f(value, i);
        init = op(init, value);
      });
    }
    return combine({"for_each_reduce of a row", held.size, sizeof(T)}, init, op);
  }
  template <class T>
  std::int64_t find(const row<T>& held, T value) const {
    std::int64_t lowest = held.size;
    {
      const phase in_phase(*this, "find");
      held.visit([&](T element, std::int64_t i) {
        if (element == value) lowest = std::min(lowest, i);
      });
    }
    return combine({"find", held.size, sizeof(T)}, lowest,
                   [](std::int64_t a, std::int64_t b) { return std::min(a, b); });
  }

 private:
  // While it lives, the lane is inside a call, and may make no other.
  struct phase {
    phase(const lane_group& group, const char* name) : lane(group) {
      if (lane.inside_ != nullptr) refuse(name, lane.inside_);
      lane.inside_ = name;
    }
    ~phase() { lane.inside_ = nullptr; }
    phase(const phase&) = delete;
    const lane_group& lane;
  };

  [[noreturn]] static void refuse(const char* name, const char* inside);

  // f(i) for the lane's share of [0, n), in vectors of `width`.
  template <class F>
  void own_indices(std::int64_t n, std::int64_t width, F f) const {
    for (std::int64_t first = lane_ * width; first < n; first += team_.lanes() * width)
      for (std::int64_t i = first; i < std::min(first + width, n); ++i) f(i);
  }

  // op over one value a lane, in a tree whose shape depends on nothing but the number of lanes. Two sets of
  // slots in turn: a lane that is ahead writes the next values while another still reads these.
  template <class T, class Op>
  T combine(const group_call& call, T mine, Op op) const {
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= lane_team::slot_bytes,
                  "lanes combine plain values");
    const std::size_t lanes = static_cast<std::size_t>(team_.lanes());
    const int buffer = buffer_;
    buffer_ = 1 - buffer_;
    std::memcpy(team_.slot(buffer, lane_), &mine, sizeof(T));
    team_.arrive(lane_, call);
    std::vector<T> values(lanes, mine);
    for (std::size_t lane = 0; lane < lanes; ++lane)
      std::memcpy(&values[lane], team_.slot(buffer, static_cast<int>(lane)), sizeof(T));
    for (std::size_t step = 1; step < lanes; step *= 2)
      for (std::size_t lane = 0; lane + step < lanes; lane += 2 * step)
        values[lane] = op(values[lane], values[lane + step]);
    return values[0];
  }

  lane_team& team_;
  const int lane_;
  mutable const char* inside_ = nullptr;
  mutable int buffer_ = 0;
};

// What a team runs: an algorithm with its group and the lane's number, once per lane. A run throws what a lane threw first.
using lane_function = std::function<void(const lane_group&, int lane)>;

// Groups that need no team, for tests that take either.
template <class Group>
struct one_lane {
  int lanes() const { return 1; }
  template <class F>
  void run(F f) const {
    f(Group{}, 0);
  }
};

}  // namespace support
