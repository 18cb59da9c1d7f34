// SPDX-License-Identifier: MIT

// The groups of a device themselves: after a call, every lane sees what the call stored, however late a lane comes to it. What
// else a group promises, group_test asks of the host's groups, and cuda_test of these through the whole driver.

#include <cstdint>
#include <cstdio>
#include <lgm/detail/cuda/block_group.cuh>
#include <vector>

namespace {

constexpr int skipped = 77;  // what the test driver takes for "not run"
constexpr int calls = 4;

// The upper half of the lanes is late for what follows.
template <class Group>
__device__ void wait_in_half_of_the_lanes() {
  if (Group::lane() < Group::lanes / 2) return;
  const long long begin = clock64();
  while (clock64() - begin < 20000) continue;
}

// Call after call stores 2 * in to an array of its own, of which each lane then reads what another has stored.
//   in, row  [n], the same numbers; stored, read: [calls, n]
template <class Group>
__global__ void store_and_read(std::int64_t n, const float* in, float* row, float* stored, float* read) {
  const Group group;
  const auto read_others = [&](int call) {
    for (std::int64_t i = Group::lane(); i < n; i += Group::lanes)
      read[call * n + i] = stored[call * n + n - 1 - i];
  };
  wait_in_half_of_the_lanes<Group>();
  group.for_each(n, [&](std::int64_t i) { stored[i] = 2 * in[i]; });
  read_others(0);

  auto held = group.load_row(row, n);
  wait_in_half_of_the_lanes<Group>();
  group.for_each(held, [&](float& value, std::int64_t i) {
    value *= 2;
    stored[n + i] = value;
  });
  read_others(1);

  wait_in_half_of_the_lanes<Group>();
  held.store(stored + 2 * n);
  read_others(2);

  group.one_lane([&] {
    for (std::int64_t i = 0; i < n; ++i) stored[3 * n + i] = 2 * in[i];
  });
  read_others(3);
}

// A group whose rows are in registers, and one whose rows are in memory.
template <class Group>
bool run(const char* name) {
  for (const std::int64_t n : {std::int64_t(1), std::int64_t(Group::lanes + 1), std::int64_t(5000)}) {
    std::vector<float> in, got(static_cast<std::size_t>(calls * n));
    for (std::int64_t i = 0; i < n; ++i) in.push_back(static_cast<float>(i + 1));
    float* memory = nullptr;
    const std::size_t row = in.size() * sizeof(float);
    bool good = cudaMalloc(&memory, (2 + 2 * calls) * row) == cudaSuccess &&
                cudaMemset(memory, 0, (2 + 2 * calls) * row) == cudaSuccess;
    float *const copy = memory + n, *const stored = copy + n, *const read = stored + calls * n;
    for (float* to : {memory, copy})
      good = good && cudaMemcpy(to, in.data(), row, cudaMemcpyHostToDevice) == cudaSuccess;
    if (good) store_and_read<Group><<<1, Group::lanes>>>(n, memory, copy, stored, read);
    good = good && cudaMemcpy(got.data(), read, calls * row, cudaMemcpyDeviceToHost) == cudaSuccess;
    cudaFree(memory);
    if (!good) std::printf("%s: the kernel failed: %s\n", name, cudaGetErrorString(cudaGetLastError()));
    for (std::size_t at = 0; good && at < got.size(); ++at) {
      const std::size_t i = in.size() - 1 - at % in.size();
      if (got[at] == 2 * in[i]) continue;
      std::printf("%s: of %zu elements, %zu is not what call %zu stored\n", name, in.size(), i,
                  at / in.size());
      good = false;
    }
    if (!good) return false;
  }
  return true;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  using namespace lgm::detail;
  const bool good = run<warp_group<4>>("4 lanes") && run<warp_group<32, 2>>("32 lanes") &&
                    run<block_group<256>>("256 lanes, rows in memory") &&
                    run<block_group<256, 8>>("256 lanes, rows in registers");
  return good ? 0 : 1;
}
