// SPDX-License-Identifier: MIT
#include "arguments.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <lgm/lgm.hpp>
#include <limits>
#include <memory>
#include <string>

#include "../support/plain_gemm.hpp"

// Every host function with any arguments: it names something that is wrong with them and writes nothing, or succeeds and
// writes its outputs alone, the same whatever its workspace held. Memory is of the length that the arguments promise, or,
// where they promise more than a test can have, of none: then the call must fail before it looks.

namespace {

using namespace fuzz;
using lgm::status;

constexpr std::int64_t most_elements = 1 << 14;    // of an array
constexpr std::int64_t most_work = 1 << 16;        // samples * classes * dims
constexpr std::size_t most_workspace = 1u << 20u;  // bytes

enum class function {
  forward,
  backward,
  forward_backward,
  finish_forward,
  logits,
  plain_logits,
  logits_backward,
  score,
  initialize_means,
  sgd_step,
  merge_row_state,
  accumulate_moments,
  merge_moments,
  estimate,
  count,
  whiten = count,
  estimate_whitening
};

// ---- one call ----

template <class T, class L>
class call {
 public:
  explicit call(choices& bytes) : in_(bytes), random_(seed()) {
    // Few bytes are those that came last: the corpus keeps its meaning.
    const unsigned which = in_.byte();
    name_ = which >= 252   ? function::estimate_whitening
            : which >= 248 ? function::whiten
                           : static_cast<function>(which % static_cast<unsigned>(function::count));
    kind_ = in_.often() ? values::real : values::wild;
    offset_ = in_.byte() % 4;
    make_context();
    make_shape();
    make_arguments();
    make_workspace();
  }

  void check() {
    if (too_much_) return;
    scribble(0xff);
    const status answer = run_();
    require(faults_.explains(answer),
            "the status says what is wrong: " + std::string(lgm::to_string(answer)));
    if (answer != status::success) return memory_.require_untouched();
    memory_.require_only_outputs_written();
    check_results();
    const auto first = memory_.contents();
    memory_.restore();
    scribble(0x3c);
    require(run_() == status::success && memory_.contents() == first,
            "a call that is repeated gives the same bits");
  }

 private:
  using limits = std::numeric_limits<T>;

  std::uint64_t seed() { return in_.byte() << 8 | in_.byte(); }
  bool uses_workspace() const {
    return name_ <= function::score || name_ == function::accumulate_moments || name_ == function::whiten;
  }
  bool may_lack_labels() const { return name_ == function::logits || name_ == function::logits_backward; }

  // ---- memory: null, or of the length that the shape says; of none where that is too much ----

  template <class V>
  V* array(bool written, std::int64_t rows, std::int64_t columns, std::int64_t stride, values kind) {
    if (!shape_valid_ || rows < 0 || columns < 0) rows = 0;
    if (rows > 0 && columns > 0 && wide(rows - 1) * or_packed(stride, columns) + columns > most_elements) {
      rows = 0;
      missing_ = true;
    }
    return memory_.take<V>(written, rows, rows == 0 ? 0 : columns, stride, offset_,
                           [&] { return value<V>(random_, kind); });
  }
  const T* input(std::int64_t rows, std::int64_t columns, std::int64_t stride, values kind) {
    if (in_.rarely()) return nullptr;
    return array<T>(false, rows, columns, stride, kind_ == values::wild ? kind_ : kind);
  }
  const T* optional(std::int64_t count, values kind) {
    if (in_.often() || count > most_elements) return nullptr;
    return array<T>(false, count, 1, 0, kind_ == values::wild ? kind_ : kind);
  }
  const T* one(T content) {
    return memory_.take<T>(false, 1, 1, 0, offset_, [&] { return content; });
  }
  T* output(std::int64_t rows, std::int64_t columns = 1, std::int64_t stride = 0) {
    return in_.byte() % 8 == 7 ? nullptr : array<T>(true, rows, columns, stride, values::real);
  }
  std::int64_t* whole_output(std::int64_t rows) {
    if (in_.byte() % 8 == 7) return nullptr;
    if (!shape_valid_ || rows > most_elements) rows = 0;
    return memory_.take<std::int64_t>(true, rows, 1, 0, offset_, [] { return std::int64_t{-7}; });
  }

  // A number of an option, rarely one that no option allows.
  T option(T most) {
    const unsigned b = in_.byte();
    if (b > 235) return special<T>(in_.byte());
    return most * static_cast<T>(b) / T(235);
  }

  // ---- arguments ----

  void make_context() {
    context_.threads =
        in_.rarely() ? in_.one_of({std::numeric_limits<int>::max(), -1, std::numeric_limits<int>::min()})
                     : in_.one_of({1, 0, 2, 3, 7, 64});
    context_.tile_bytes = in_.one_of<std::size_t>({std::size_t{64} << 20u, 0, 1, 4096, 16384, 65536,
                                                   1u << 18u, std::numeric_limits<std::size_t>::max()});
    // Each slot has scratch memory: as many as there are bytes for.
    if (context_.tile_bytes > std::size_t{64} << 20u) context_.threads = std::min(context_.threads, 64);
    if (in_.byte() % 4 == 1) context_.parallel_for.run = slots_backwards;
    const unsigned b = in_.byte() % 8;
    if (b == 1)
      context_.gemm.sgemm = support::plain_gemm<float>, context_.gemm.dgemm = support::plain_gemm<double>;
    if (b == 2) context_.gemm.sgemm = no_gemm<float>, context_.gemm.dgemm = no_gemm<double>;
  }

  void make_shape() {
    auto& s = shape_;
    s.samples = in_.size();
    s.classes = in_.size();
    s.dims = in_.size();
    s.covariance = static_cast<lgm::covariance>(in_.rarely() ? static_cast<int>(in_.byte()) - 100
                                                             : static_cast<int>(in_.byte() % 3));
    s.feature_stride = stride(s.dims);
    s.gradient_stride = stride(s.dims);
    s.logits_stride = stride(s.classes);
    if (in_.byte() % 4 == 1) {
      s.class_begin = in_.size();
      s.total_classes = in_.often() && s.class_begin >= 0 && s.classes >= 0 && s.class_begin < 1 << 30 &&
                                s.classes < 1 << 30
                            ? s.class_begin + s.classes + in_.byte() % 8
                            : in_.size();
    }
    faults_ = faults_of(s, context_.threads);
    shape_valid_ = faults_.none();
    // The call's own work is kept small; what is beyond is a shape without memory.
    if (shape_valid_ && (wide(s.samples) + 1) * (wide(s.classes) + 1) * (wide(s.dims) + 1) > most_work)
      missing_ = true;
  }
  std::int64_t stride(std::int64_t length) {
    const unsigned b = in_.byte();
    if (b < 128) return 0;
    if (b > 240 || length < 0 || length > 1 << 30) return in_.any_size();
    return length + b % 5;
  }

  void make_options() {
    auto& o = options_;
    o.alpha = option(T(2));
    o.lambda = option(T(2));
    if (in_.byte() % 4 == 1) o.alpha_at = one(option(T(2)));
    o.reduction = static_cast<lgm::reduction>(in_.rarely() ? static_cast<int>(in_.byte()) - 100
                                                           : static_cast<int>(in_.byte() % 3));
    o.ignore_label = in_.one_of<std::int64_t>({-100, 0, 1, 3, 255, -1, in_.any_size()});
    o.class_weight = optional(total_classes(shape_), values::weight);
    o.sample_weight = optional(shape_.samples, values::weight);
    o.label_smoothing = in_.often() ? T(0) : option(T(1));
    if (in_.byte() % 4 == 1) o.normalizer = one(option(T(2)) + (kind_ == values::wild ? T(0) : T(1)));
    if (in_.byte() % 4 == 1) o.gradient_filter = option(T(1));
    faults_.add(o.alpha_at == nullptr && !(o.alpha >= T(0) && o.alpha <= limits::max()),
                status::invalid_alpha);
    faults_.add(!(o.lambda >= T(0) && o.lambda <= limits::max()), status::invalid_lambda);
    faults_.add(!(o.label_smoothing >= T(0) && o.label_smoothing <= T(1)), status::invalid_label_smoothing);
    faults_.add(!(o.gradient_filter >= T(0) && o.gradient_filter < T(1)), status::invalid_option);
    faults_.add(static_cast<int>(o.reduction) < 0 || static_cast<int>(o.reduction) > 2,
                status::invalid_option);
  }

  void make_mixture() {
    const auto& s = shape_;
    mixture_.mean = input(s.classes, s.dims, 0, values::real);
    if (in_.often())
      mixture_.log_variance = array<T>(false, s.covariance == lgm::covariance::identity ? 0 : s.classes,
                                       s.covariance == lgm::covariance::diagonal ? s.dims : 1, 0,
                                       kind_ == values::wild ? kind_ : values::log_variance);
    mixture_.log_prior = optional(s.classes, values::log_variance);
    features_ = input(s.samples, s.dims, s.feature_stride, values::real);
    faults_.add(mixture_.mean == nullptr && s.classes > 0 && s.dims > 0, status::null_pointer);
    faults_.add(features_ == nullptr && s.samples > 0 && s.dims > 0, status::null_pointer);
  }

  // A label for each sample, rarely one that is out of range; null where they cannot all be looked at.
  void make_labels() {
    const auto& s = shape_;
    const bool absent = in_.rarely() || !shape_valid_ || s.samples > most_elements;
    const unsigned wrong = in_.rarely() ? 1 + in_.byte() : 0;
    const std::int64_t other = in_.any_size(), total = total_classes(s);
    if (absent) {
      faults_.add(!may_lack_labels() && s.samples > 0, status::null_pointer);
      return;
    }
    std::int64_t at = 0;
    labels_ = memory_.take<L>(false, s.samples, 1, 0, offset_, [&] {
      const std::uint64_t bits = random_.next();
      std::int64_t label =
          bits % 8 == 0 || total == 0 ? options_.ignore_label
          : bits % 8 < 4 && s.classes > 0
              ? s.class_begin + static_cast<std::int64_t>(bits / 8 % static_cast<std::uint64_t>(s.classes))
              : static_cast<std::int64_t>(bits / 8 % static_cast<std::uint64_t>(total));
      if (wrong != 0 && at++ == wrong - 1) label = other;
      const auto stored = static_cast<L>(label);
      const auto read = static_cast<std::int64_t>(stored);
      const bool ignored = read == options_.ignore_label;
      faults_.add((read < 0 || read >= total) && !ignored, status::label_out_of_range);
      counted_ += !ignored;
      return stored;
    });
  }

  void make_targets() {
    const auto& s = shape_;
    targets_.stride = stride(s.classes);
    const bool short_stride = targets_.stride != 0 && targets_.stride < s.classes;
    faults_.add(short_stride, status::stride_too_small);
    faults_.add(product_too_large(s.samples, or_packed(targets_.stride, s.classes)), status::size_too_large);
    if (!in_.rarely())
      targets_.data = array<T>(false, short_stride ? 0 : s.samples, s.classes, targets_.stride,
                               kind_ == values::wild ? kind_ : values::weight);
    faults_.add(targets_.data == nullptr && s.samples > 0 && s.classes > 0, status::null_pointer);
    counted_ = s.samples;
  }

  void make_result() {
    const std::int64_t n = options_.reduction == lgm::reduction::none ? shape_.samples : 1;
    result_.total = output(n);
    result_.classification = output(n);
    result_.likelihood = output(n);
    result_.log_evidence = output(shape_.samples);
    result_.counted = whole_output(1);
    if (name_ == function::finish_forward && !in_.rarely()) return;
    result_.row_state = output(shape_.samples, 2);
    result_.correct = whole_output(1);
    if (name_ == function::finish_forward)
      faults_.add(result_.row_state != nullptr || result_.correct != nullptr, status::invalid_option);
  }

  lgm::parameters<T> make_parameters() {
    const auto& s = shape_;
    lgm::parameters<T> p;
    p.mean = output(s.classes, s.dims);
    p.log_variance = output(s.covariance == lgm::covariance::identity ? 0 : s.classes,
                            s.covariance == lgm::covariance::diagonal ? s.dims : 1);
    p.log_prior = output(s.classes);
    return p;
  }

  void make_gradients() {
    gradients_.feature = output(shape_.samples, shape_.dims, shape_.gradient_stride);
    const lgm::parameters<T> p = make_parameters();
    gradients_.mean = p.mean;
    gradients_.log_variance = p.log_variance;
    gradients_.log_prior = p.log_prior;
    gradients_.accumulate = in_.byte() % 4 == 1;
    if (in_.often()) return;
    const std::int64_t n = options_.reduction == lgm::reduction::none ? shape_.samples : 1;
    upstream_ = array<T>(false, n, 1, 0, kind_);
  }

  const T* make_row_state() {
    const T* state = input(shape_.samples, 2, 0, values::real);
    faults_.add(state == nullptr && shape_.samples > 0, status::null_pointer);
    return state;
  }

  // The call with labels or with soft targets.
  template <class F>
  void with_targets(F f) {
    if (name_ <= function::finish_forward && in_.byte() % 3 == 2) {
      soft_ = true;
      make_targets();
      run_ = [=] { return f(targets_); };
    } else {
      make_labels();
      run_ = [=] { return f(labels_); };
    }
  }

  void make_arguments() {
    const auto& s = shape_;
    if (uses_workspace() && name_ != function::whiten) {
      if (name_ != function::score && name_ != function::plain_logits) make_options();
      if (name_ != function::accumulate_moments) make_mixture();
    }
    switch (name_) {
      case function::forward:
        make_result();
        with_targets([this](auto z) {
          return lgm::forward(context_, shape_, mixture_, options_, features_, z, result_, workspace_);
        });
        break;
      case function::backward: {
        make_gradients();
        const T* state = make_row_state();
        with_targets([this, state](auto z) {
          return lgm::backward(context_, shape_, mixture_, options_, features_, z, state, upstream_,
                               gradients_, workspace_);
        });
        break;
      }
      case function::forward_backward:
        make_result();
        make_gradients();
        with_targets([this](auto z) {
          return lgm::forward_backward(context_, shape_, mixture_, options_, features_, z, upstream_, result_,
                                       gradients_, workspace_);
        });
        break;
      case function::finish_forward: {
        make_result();
        const T* state = make_row_state();
        with_targets([this, state](auto z) {
          return lgm::finish_forward(context_, shape_, mixture_, options_, features_, z, state, result_,
                                     workspace_);
        });
        break;
      }
      case function::logits:
      case function::plain_logits: {
        T* out = output(s.samples, s.classes, s.logits_stride);
        faults_.add(out == nullptr && s.samples > 0 && s.classes > 0, status::null_pointer);
        logits_ = out;
        if (name_ == function::logits) {
          make_labels();
          run_ = [this] {
            return lgm::logits(context_, shape_, mixture_, options_, features_, labels_, logits_, workspace_);
          };
        } else {
          run_ = [this] { return lgm::logits(context_, shape_, mixture_, features_, logits_, workspace_); };
        }
        break;
      }
      case function::logits_backward: {
        const T* slope = input(s.samples, s.classes, s.logits_stride, values::real);
        faults_.add(slope == nullptr && s.samples > 0 && s.classes > 0, status::null_pointer);
        make_gradients();
        make_labels();
        run_ = [this, slope] {
          return lgm::logits_backward(context_, shape_, mixture_, options_, features_, labels_, slope,
                                      upstream_, gradients_, workspace_);
        };
        break;
      }
      case function::score:
        lgm::for_each_score(scores_, [&](const char*, auto*& array) {
          if constexpr (std::is_same<decltype(array), T*&>::value)
            array = output(s.samples);
          else
            array = whole_output(s.samples);
        });
        run_ = [this] { return lgm::score(context_, shape_, mixture_, features_, scores_, workspace_); };
        break;
      case function::initialize_means: make_initialize(); break;
      case function::sgd_step: make_step(); break;
      case function::accumulate_moments:
        in_.byte() % 2 == 0 ? make_accumulate<double>() : make_accumulate<float>();
        break;
      case function::merge_moments: in_.byte() % 2 == 0 ? make_merge<double>() : make_merge<float>(); break;
      case function::estimate: in_.byte() % 2 == 0 ? make_estimate<double>() : make_estimate<float>(); break;
      case function::whiten: make_whiten(); break;
      case function::estimate_whitening:
        in_.byte() % 2 == 0 ? make_estimate_whitening<double>() : make_estimate_whitening<float>();
        break;
      default: {
        const T* from = input(s.samples, 2, 0, values::real);
        T* into = output(s.samples, 2);
        faults_.add((from == nullptr || into == nullptr) && s.samples > 0, status::null_pointer);
        too_much_ = missing_ && from != nullptr && into != nullptr;
        run_ = [this, from, into] { return lgm::merge_row_state(context_, shape_, from, into); };
      }
    }
  }

  void make_initialize() {
    const lgm::parameters<T> p = make_parameters();
    const T scale = option(T(2));
    const auto seed = static_cast<std::uint64_t>(in_.number());
    faults_.add(p.mean == nullptr && shape_.classes > 0 && shape_.dims > 0, status::null_pointer);
    faults_.add(!(std::abs(scale) <= limits::max()), status::invalid_option);
    parameters_ = p;
    too_much_ = missing_ && faults_.none();
    run_ = [this, seed, scale] { return lgm::initialize_means(context_, shape_, seed, scale, parameters_); };
  }

  void make_step() {
    lgm::sgd_options<T> o;
    o.mean_rate = option(T(1));
    o.log_variance_rate = option(T(1));
    o.log_prior_rate = option(T(1));
    o.momentum = in_.often() ? T(0) : option(T(1));
    o.nesterov = in_.byte() % 2 == 1;
    o.weight_decay = option(T(1));
    o.min_log_variance = in_.often() ? T(-2) : value<T>(random_, values::wild);
    o.max_log_variance = in_.often() ? T(8) : value<T>(random_, values::wild);
    for (const T** at :
         {&o.mean_rate_at, &o.log_variance_rate_at, &o.log_prior_rate_at, &o.inverse_loss_scale_at})
      if (in_.byte() % 8 == 1) *at = one(option(T(1)));
    const bool skip = in_.byte() % 8 == 1;
    if (skip) o.skip_at = memory_.take<bool>(false, 1, 1, 0, offset_, [] { return true; });
    const auto bad = [](T v) { return !(v >= T(0) && v <= limits::max()); };
    faults_.add(bad(o.mean_rate) || bad(o.log_variance_rate) || bad(o.log_prior_rate) || bad(o.momentum) ||
                    o.momentum >= T(1) || bad(o.weight_decay) || !(o.min_log_variance <= o.max_log_variance),
                status::invalid_option);

    make_gradients();
    const lgm::parameters<T> momentum = make_parameters();
    parameters_ = make_parameters();
    const auto lacks = [](const T* gradient, const T* velocity, const T* parameter) {
      return gradient != nullptr && velocity == nullptr && parameter != nullptr;
    };
    const auto& s = shape_;
    const bool diagonal = s.covariance == lgm::covariance::diagonal;
    const bool without_momentum =
        (lacks(gradients_.mean, momentum.mean, parameters_.mean) && s.classes > 0 && s.dims > 0) ||
        (lacks(gradients_.log_variance, momentum.log_variance, parameters_.log_variance) &&
         s.covariance != lgm::covariance::identity && s.classes > 0 && (!diagonal || s.dims > 0)) ||
        (lacks(gradients_.log_prior, momentum.log_prior, parameters_.log_prior) && s.classes > 0);
    faults_.add(o.momentum != T(0) && without_momentum, status::null_pointer);
    too_much_ = missing_;
    run_ = [this, o, momentum] {
      return lgm::sgd_step(context_, shape_, o, gradients_, momentum, parameters_);
    };
  }

  template <class A>
  A* moments_array(bool written, std::int64_t rows, std::int64_t columns, bool needed) {
    const unsigned b = in_.byte();
    if (needed ? b > 240 : b % 4 == 3) return nullptr;
    return array<A>(written, rows, columns, 0, kind_ == values::wild ? kind_ : values::weight);
  }
  template <class A>
  lgm::class_moments<A> make_moments(bool written) {
    const auto& s = shape_;
    lgm::class_moments<A> m;
    m.count = moments_array<A>(written, s.classes, 1, true);
    m.mean = moments_array<A>(written, s.classes, s.dims, false);
    m.m2 = moments_array<A>(written, s.classes, s.dims, false);
    m.mean_residual = moments_array<A>(written, s.classes, s.dims, false);
    m.scatter = moments_array<A>(written, s.dims, s.dims, false);
    return m;
  }
  template <class A>
  void check_moments(const lgm::class_moments<A>& m) {
    const auto& s = shape_;
    faults_.add(m.count == nullptr && s.classes > 0, status::null_pointer);
    faults_.add((m.m2 != nullptr || m.scatter != nullptr) && m.mean == nullptr && s.classes > 0 && s.dims > 0,
                status::null_pointer);
    faults_.add(m.scatter != nullptr && product_too_large(s.dims, s.dims), status::size_too_large);
  }

  template <class A>
  void make_accumulate() {
    features_ = input(shape_.samples, shape_.dims, shape_.feature_stride, values::real);
    make_labels();
    const lgm::class_moments<A> m = make_moments<A>(true);
    check_moments(m);
    faults_.add(m.mean != nullptr && features_ == nullptr && shape_.samples > 0 && shape_.dims > 0,
                status::null_pointer);
    run_ = [this, m] {
      return lgm::accumulate_moments(context_, shape_, options_, features_, labels_, m, workspace_);
    };
  }

  template <class A>
  void make_merge() {
    const auto& s = shape_;
    const lgm::class_moments<A> from = make_moments<A>(false), into = make_moments<A>(true);
    check_moments(from);
    check_moments(into);
    faults_.add(
        ((into.mean != nullptr && from.mean == nullptr) || (into.m2 != nullptr && from.m2 == nullptr)) &&
            s.classes > 0 && s.dims > 0,
        status::null_pointer);
    faults_.add(into.scatter != nullptr && from.scatter == nullptr && s.dims > 0, status::null_pointer);
    too_much_ = missing_;
    run_ = [this, from, into] { return lgm::merge_moments(context_, shape_, from, into); };
  }

  template <class A>
  void make_estimate() {
    const auto& s = shape_;
    const lgm::class_moments<A> m = make_moments<A>(false);
    parameters_ = make_parameters();
    lgm::estimate_options<T> o;
    o.variance_floor = option(T(1));
    o.shrinkage = option(T(1));
    o.decay = option(T(1));
    const bool variances = parameters_.log_variance != nullptr && s.covariance != lgm::covariance::identity;
    faults_.add(!(o.variance_floor >= T(0) && o.variance_floor <= limits::max()) ||
                    !(o.shrinkage >= T(0) && o.shrinkage <= T(1)) || !(o.decay >= T(0) && o.decay <= T(1)),
                status::invalid_option);
    faults_.add(m.count == nullptr && s.classes > 0, status::null_pointer);
    faults_.add(((parameters_.mean != nullptr && m.mean == nullptr) || (variances && m.m2 == nullptr)) &&
                    s.classes > 0 && s.dims > 0,
                status::null_pointer);
    too_much_ = missing_;
    run_ = [this, m, o] { return lgm::estimate(context_, shape_, m, o, parameters_); };
  }

  void make_whiten() {
    const auto& s = shape_;
    // An input of the call, but the struct has no const.
    T* const map = const_cast<T*>(input(s.dims, s.dims, 0, values::real));
    const lgm::whitening<T> w{map, const_cast<T*>(optional(s.dims, values::real))};
    features_ = input(s.samples, s.dims, s.feature_stride, values::real);
    T* const out = output(s.samples, s.dims, s.gradient_stride);
    faults_.add((map == nullptr || features_ == nullptr || out == nullptr) && s.samples > 0 && s.dims > 0,
                status::null_pointer);
    run_ = [this, w, out] { return lgm::whiten(context_, shape_, w, features_, out, workspace_); };
  }

  template <class A>
  void make_estimate_whitening() {
    const auto& s = shape_;
    const lgm::class_moments<A> m = make_moments<A>(false);
    check_moments(m);
    const lgm::whitening<T> w{output(s.dims, s.dims), output(s.dims), output(1)};
    lgm::whitening_options<T> o;
    o.variance_floor = option(T(1));
    o.shrinkage = option(T(1));
    faults_.add(!(o.variance_floor >= T(0) && o.variance_floor <= limits::max()) ||
                    !(o.shrinkage >= T(0) && o.shrinkage <= T(1)),
                status::invalid_option);
    faults_.add(w.offset != nullptr && m.mean == nullptr && s.classes > 0 && s.dims > 0,
                status::null_pointer);
    faults_.add((w.matrix == nullptr || m.scatter == nullptr) && s.dims > 0, status::null_pointer);
    faults_.add(product_too_large(s.dims, s.dims), status::size_too_large);
    // Numbers at random are seldom a covariance.
    faults_.allow(true, status::not_positive_definite);
    const std::size_t needed = lgm::whitening_workspace_size<A>(context_, s);
    too_much_ = missing_ || needed > most_workspace;
    if (too_much_) return;
    space_.reset(new unsigned char[needed + offset_]);
    const bool too_small = in_.rarely() && needed > 0;
    workspace_ = {space_.get() + offset_, needed - (too_small ? 1 : 0)};
    faults_.add(too_small, status::workspace_too_small);
    run_ = [this, m, o, w] { return lgm::estimate_whitening(context_, shape_, m, o, w, workspace_); };
  }

  // ---- workspace ----

  void make_workspace() {
    // Also of a shape that no call would take.
    std::size_t needed = lgm::workspace_size<T>(context_, shape_);
    if (!shape_valid_) require(needed == 0, "a shape that is refused needs no workspace");
    if (!uses_workspace()) return;
    const unsigned b = in_.byte();
    const bool exact = b < 200;
    if (missing_ || !shape_valid_) {
      needed = b % 64;
    } else if (needed > most_workspace) {
      too_much_ = true;
      return;
    } else if (b >= 150 && b < 200) {
      // A workspace for more samples is enough for fewer.
      lgm::shape more = shape_;
      more.samples += b - 149;
      const bool valid = faults_of(more, context_.threads).none();
      const std::size_t enough = valid ? lgm::workspace_size<T>(context_, more) : needed;
      if (enough > most_workspace) return void(too_much_ = true);
      needed = enough;
    } else if (!exact) {
      needed = b < 230 && needed > 0 ? needed - 1 : needed * (255 - b) / 26;
    }
    space_.reset(new unsigned char[needed + offset_]);
    workspace_.bytes = needed;
    workspace_.data = b == 255 ? nullptr : space_.get() + offset_;
    faults_.add(b == 255, status::null_pointer);
    // A call needs no less than its workspace_size, but for the slack of an address and of tiles.
    if (missing_) {
      faults_.add(true, status::workspace_too_small);
      faults_.allow(true, status::size_too_large);
    } else if (!exact) {
      faults_.allow(true, status::workspace_too_small);
    }
  }
  void scribble(unsigned char content) {
    std::fill_n(space_.get(), space_ ? workspace_.bytes + offset_ : 0, content);
  }

  // ---- results ----

  static bool all_finite(const T* data, std::int64_t rows, std::int64_t columns = 1,
                         std::int64_t stride = 0) {
    for (std::int64_t r = 0; data != nullptr && r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c)
        if (!std::isfinite(data[r * or_packed(stride, columns) + c])) return false;
    return true;
  }
  bool gradients_finite() const {
    const auto& s = shape_;
    return all_finite(gradients_.feature, s.samples, s.dims, s.gradient_stride) &&
           all_finite(gradients_.mean, s.classes, s.dims) &&
           all_finite(gradients_.log_variance, s.covariance == lgm::covariance::diagonal ? s.classes * s.dims
                                               : s.covariance == lgm::covariance::spherical ? s.classes
                                                                                            : 0) &&
           all_finite(gradients_.log_prior, s.classes);
  }
  // The weights that a mean divides by are not all zero.
  bool weighs() const {
    if (options_.reduction != lgm::reduction::mean || options_.normalizer != nullptr) return true;
    if (soft_) {
      for (std::int64_t i = 0; i < shape_.samples; ++i)
        if (options_.sample_weight == nullptr || options_.sample_weight[i] > T(0.125)) return true;
      return false;
    }
    for (std::int64_t i = 0; i < shape_.samples; ++i) {
      const auto z = static_cast<std::int64_t>(labels_[i]);
      if (z != options_.ignore_label &&
          (options_.sample_weight == nullptr || options_.sample_weight[i] > T(0.125)) &&
          (options_.class_weight == nullptr || options_.class_weight[z] > T(0.125)))
        return true;
    }
    return false;
  }

  void check_results() const {
    const auto& s = shape_;
    const bool loss = name_ == function::forward || name_ == function::forward_backward;
    if ((loss || name_ == function::finish_forward) && result_.counted != nullptr)
      require(*result_.counted == counted_, "counted is the number of samples that are not ignored");
    if (loss && result_.correct != nullptr)
      require(*result_.correct >= 0 && *result_.correct <= counted_, "no more are correct than are counted");
    if (name_ == function::score && scores_.predicted != nullptr)
      for (std::int64_t i = 0; i < s.samples; ++i)
        require(scores_.predicted[i] == -1 || (scores_.predicted[i] >= s.class_begin &&
                                               scores_.predicted[i] < s.class_begin + s.classes),
                "a predicted class is one of this call's, or -1");

    // Moderate numbers give numbers.
    const bool alpha_usable =
        options_.alpha_at == nullptr || (*options_.alpha_at >= T(0) && *options_.alpha_at <= T(2));
    if (kind_ == values::wild || s.classes == 0 || !alpha_usable || !(options_.lambda <= T(2)) ||
        !(options_.alpha <= T(2)) ||
        (options_.normalizer != nullptr && !(*options_.normalizer >= T(0.5) && *options_.normalizer <= T(3))))
      return;
    const std::int64_t n = options_.reduction == lgm::reduction::none ? s.samples : 1;
    if (loss && weighs()) {
      require(all_finite(result_.total, n) && all_finite(result_.classification, n) &&
                  all_finite(result_.likelihood, n),
              "the losses are finite");
      require(all_finite(result_.log_evidence, s.samples), "log_evidence is finite");
    }
    if (name_ == function::forward_backward && weighs())
      require(gradients_finite(), "the gradients are finite");
    if (name_ == function::logits_backward && (labels_ == nullptr || weighs()))
      require(gradients_finite(), "the gradients are finite");
    if (name_ == function::logits || name_ == function::plain_logits)
      require(all_finite(logits_, s.samples, s.classes, s.logits_stride), "the logits are finite");
    if (name_ == function::score) {
      lgm::for_each_score(scores_, [&](const char*, const auto* array) {
        if constexpr (std::is_same<decltype(array), const T*>::value)
          require(all_finite(array, s.samples), "the scores are finite");
      });
      for (std::int64_t i = 0; scores_.posterior != nullptr && i < s.samples; ++i)
        require(scores_.posterior[i] >= T(0) && scores_.posterior[i] <= T(1), "a posterior is in [0, 1]");
    }
    if (name_ == function::initialize_means)
      require(all_finite(parameters_.log_prior, total_classes(s) == 0 ? 0 : s.classes),
              "the priors are finite");
  }

  choices& in_;
  generator random_;
  function name_{};
  values kind_{};
  std::size_t offset_ = 0;
  memory memory_;
  faults faults_;
  bool shape_valid_ = false;
  bool missing_ = false;   // some memory is shorter than the call would need
  bool too_much_ = false;  // not called

  lgm::host_context context_;
  lgm::shape shape_;
  lgm::mixture<T> mixture_;
  lgm::loss_options<T> options_;
  const T* features_ = nullptr;
  const L* labels_ = nullptr;
  lgm::soft_targets<T> targets_;
  bool soft_ = false;
  std::int64_t counted_ = 0;
  const T* upstream_ = nullptr;
  lgm::loss_result<T> result_;
  lgm::gradients<T, T> gradients_;
  lgm::parameters<T> parameters_;
  lgm::score_result<T> scores_;
  T* logits_ = nullptr;
  std::unique_ptr<unsigned char[]> space_;
  lgm::workspace workspace_;
  std::function<status()> run_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::choices bytes(data, size);
  switch (bytes.byte() % 6) {
    case 0: call<float, std::int64_t>(bytes).check(); break;
    case 1: call<float, std::int32_t>(bytes).check(); break;
    case 2: call<float, std::uint8_t>(bytes).check(); break;
    case 3: call<double, std::int64_t>(bytes).check(); break;
    case 4: call<double, std::int32_t>(bytes).check(); break;
    default: call<double, std::uint8_t>(bytes).check(); break;
  }
  return 0;
}
