// SPDX-License-Identifier: MIT
#pragma once

// For a file that is compiled with tests/support/cuda_fibres before CUDA's own folders, and with -fsanitize=thread.

#include <cxxabi.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/cuda/run_tasks.cuh>
#include <lgm/detail/device/direct.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "device_cost/meter.hpp"
#include "support/cuda_fibres.hpp"

// A device that finds out what a call would cost a GPU. Of each launch it runs a few blocks as the GPU would, and meters what
// their threads load and store; so what is reported is what the driver does, whatever is changed in it. Launches that are alike
// are metered once. Products are noted.

namespace bench {

struct kernel_cost {
  std::string name;
  int lanes = 0;
  std::int64_t tasks = 0, launches = 0;
  lgm::detail::launch_shape shape{};
  // Of one launch, in bytes: what reaches the device's memory, where every array is read and written once at the most; and what
  // its warps ask of the caches.
  double bytes = 0, requested = 0;
  std::int64_t loads = 0;  // the most by one thread, for one task
  double operations =
      0;  // of arithmetic, where the kernel's work is arithmetic: those of a diagonal covariance
};

struct product_cost {
  std::int64_t m, n, k;
  lgm::detail::number_format format;
  bool adds;  // to what there is
  std::int64_t calls;
};

class costing_device {
 public:
  // m: watches the arrays of the call.
  explicit costing_device(meter& m) : meter_(m) { m.observe(fibres_); }

  std::vector<kernel_cost> kernels() const {
    std::vector<kernel_cost> all;
    for (const auto& each : kernels_) all.push_back(each.second);
    return all;
  }
  const std::vector<product_cost>& products() const { return products_; }

  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
    if (tasks > 0) ((lanes == Widths ? launch_groups<Widths>(tasks, kernel) : void()), ...);
  }
  template <class T>
  void multiply(lgm::detail::number_format format, bool, bool, std::int64_t m, std::int64_t n, std::int64_t k,
                T, const void*, std::int64_t, const void*, std::int64_t, T beta, T*, std::int64_t) {
    for (product_cost& p : products_)
      if (std::tie(p.m, p.n, p.k, p.format) == std::tie(m, n, k, format) && p.adds == (beta != T(0))) {
        ++p.calls;
        return;
      }
    products_.push_back({m, n, k, format, beta != T(0), 1});
  }
  lgm::status result() const { return lgm::status::success; }

 private:
  // What launches have in common that are alike: of a tile, its size and whether it is the first; else all of the kernel.
  using key = std::tuple<std::string, int, std::int64_t, std::string>;

  template <class Kernel, class = void>
  struct has_tile : std::false_type {};
  template <class Kernel>
  struct has_tile<Kernel, std::void_t<decltype(Kernel::t.first_class)>> : std::true_type {};

  template <class Kernel>
  static std::string name_of() {
    int failed = 0;
    const std::unique_ptr<char, decltype(&std::free)> text(
        abi::__cxa_demangle(typeid(Kernel).name(), nullptr, nullptr, &failed), &std::free);
    std::string name = text.get();
    name.erase(std::min(name.find('<'), name.size()));
    return name.substr(name.rfind(':') + 1);
  }

  // The arithmetic of direct.hpp's kernels: of each sample, class and dimension.
  template <class Kernel>
  static double operations_of(const Kernel&) {
    return 0;
  }
  template <class T>
  static double operations_of(const lgm::detail::direct_logits_kernel<T>& k) {
    return 4 * product_of(k);
  }
  template <class T>
  static double operations_of(const lgm::detail::direct_feature_kernel<T>& k) {
    return 4 * product_of(k);
  }
  template <class T>
  static double operations_of(const lgm::detail::direct_sums_kernel<T>& k) {
    return 5 * product_of(k);
  }
  template <class Kernel>
  static double product_of(const Kernel& k) {
    return static_cast<double>(k.rows) * static_cast<double>(k.classes) * static_cast<double>(k.dims);
  }

  template <int Lanes, class Kernel>
  void launch_groups(std::int64_t tasks, const Kernel& kernel) {
    key k{name_of<Kernel>(), Lanes, tasks, {}};
    if constexpr (has_tile<Kernel>::value) {
      for (const std::int64_t n :
           {kernel.t.row_count, kernel.t.class_count, std::int64_t(kernel.t.first_row > 0),
            std::int64_t(kernel.t.first_class > 0)})
        std::get<3>(k) += std::to_string(n) + ' ';
    } else {
      std::get<3>(k).assign(reinterpret_cast<const char*>(&kernel), sizeof(kernel));
    }
    const auto [place, is_new] = kernels_.try_emplace(k);
    if (is_new) place->second = measured<Lanes>(std::get<0>(k), tasks, kernel);
    ++place->second.launches;
  }

  template <int Lanes, class Kernel>
  kernel_cost measured(const std::string& name, std::int64_t tasks, const Kernel& kernel) {
    kernel_cost cost;
    cost.name = name;
    cost.lanes = Lanes;
    cost.tasks = tasks;
    cost.shape = lgm::detail::launch_shape::make(Lanes, tasks);
    const std::int64_t groups = cost.shape.groups, blocks = (tasks + groups - 1) / groups;
    meter& m = meter_;
    m.reset();
    std::int64_t metered = 0;
    // Two blocks that are not at an edge, or one that has much to do.
    for (const std::int64_t block : {blocks / 3, 2 * blocks / 3}) {
      constexpr std::int64_t much = 2000000;
      if (metered > 0 && (block == blocks / 3 || m.accesses() > much)) continue;
      const std::int64_t first = block * groups, count = std::min(groups, tasks - first);
      const auto these = [&](const auto& group, std::int64_t n) { kernel(group, first + n); };
      m.begin();
      fibres_.launch(1, static_cast<unsigned>(cost.shape.threads),
                     [&] { lgm::detail::run_tasks<Lanes>(these, count); });
      m.end();
      metered += count;
    }
    cost.operations = operations_of(kernel);
    const double times = static_cast<double>(tasks) / static_cast<double>(metered);
    for (std::size_t n = 0; n < m.arrays().size(); ++n) {
      const traffic& of = m.arrays()[n];
      cost.bytes += std::min(of.loaded * times, static_cast<double>(m.bytes_of(n))) +
                    std::min(of.stored * times, static_cast<double>(m.bytes_of(n)));
      cost.requested += of.requested * times;
    }
    cost.loads = m.most_loads();
    // What later kernels decide by has to be there. Where it is much, it is rows of logits and sums of classes, which nothing
    // decides by.
    constexpr double much = 5e8;
    if (cost.requested < much)
      for (std::int64_t task = 0; task < tasks; ++task) kernel(lgm::serial_group{}, task);
    return cost;
  }

  meter& meter_;
  std::map<key, kernel_cost> kernels_;
  std::vector<product_cost> products_;
  support::cuda_fibres fibres_{support::lane_order::forward, 1, false};
};

}  // namespace bench
