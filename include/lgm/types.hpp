// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/config.hpp>

// The structs and enums of the interface: what is computed on, with which options, and where results go.
//
// Arrays are row-major; sizes and indices are std::int64_t. Every pointer lies in the memory of the context
// that a function is called with (host_context: host memory), at any alignment. A null output pointer is not
// computed. Sample i has `dims` features x_i and a label z_i; class k has a mean mu_k, a diagonal covariance
// Lambda_k, stored as the logarithm of the variances, and a prior p_k, stored as its logarithm.

namespace lgm {

// What a function returns. Each value but success names the one thing that is wrong; then nothing was
// written, unless said.
// clang-format off
enum class [[nodiscard]] status {
  success,
  not_supported,            // a combination that this version does not compute
  null_pointer,             // a pointer that is needed is null
  negative_size,            // samples, classes, dims or threads below zero
  size_too_large,           // a product of sizes that does not fit in std::int64_t
  stride_too_small,         // a row stride below the row's length
  invalid_class_range,      // [class_begin, class_begin + classes) does not lie in [0, total_classes)
  invalid_alpha,            // negative or not finite
  invalid_lambda,           // negative or not finite
  invalid_label_smoothing,  // outside [0, 1]
  invalid_option,           // a rate, a bound, a scale or an enum's value out of its range
  label_out_of_range,       // a label outside [0, total_classes) that is not ignore_label
  workspace_too_small,      // fewer bytes than workspace_size returns
  launch_failed,            // a device: a kernel could not be enqueued; what came before it was
  product_failed,           // a device: the same of a matrix product
  not_positive_definite,    // a covariance that is singular to within rounding, or not finite
  wrong_type,               // a tensor of other numbers
  wrong_device,             // a tensor in another memory
  wrong_layout,             // a tensor of other dimensions, or whose strides are not those of rows
};
// clang-format on

// A short English sentence for a status, without a final stop; static storage.
LGM_HD constexpr const char* to_string(status value) {
  switch (value) {
    case status::success: return "success";
    case status::not_supported: return "this combination is not supported";
    case status::null_pointer: return "a pointer that is needed is null";
    case status::negative_size: return "a size is negative";
    case status::size_too_large: return "a product of sizes does not fit in 64 bits";
    case status::stride_too_small: return "a row stride is smaller than the row";
    case status::invalid_class_range: return "the class range does not lie in [0, total_classes)";
    case status::invalid_alpha: return "alpha is negative or not finite";
    case status::invalid_lambda: return "lambda is negative or not finite";
    case status::invalid_label_smoothing: return "label_smoothing is outside [0, 1]";
    case status::invalid_option: return "an option is out of its range";
    case status::label_out_of_range: return "a label is outside [0, total_classes) and is not ignore_label";
    case status::workspace_too_small: return "the workspace is smaller than workspace_size returns";
    case status::launch_failed: return "a kernel could not be launched";
    case status::product_failed: return "a matrix product could not be enqueued";
    case status::not_positive_definite: return "the covariance is singular to within rounding, or not finite";
    case status::wrong_type: return "the tensor has numbers of another type";
    case status::wrong_device: return "the tensor lies in another memory";
    case status::wrong_layout: return "the tensor's dimensions or strides are not those that are needed";
  }
  return "unknown status";
}

// The form of Lambda_k, and with it the shape of log_variance.
enum class covariance {
  identity,   // unit variances; log_variance is not read
  spherical,  // one variance a class; log_variance [classes]
  diagonal,   // one variance a class and dimension; log_variance [classes, dims]
};

// How the losses of the samples become a result, and what the gradients are gradients of.
enum class reduction {
  mean,  // [1], the sum divided by the weights of the samples that count
  sum,   // [1]
  none,  // [samples]
};

// How a device makes its matrix products, with covariance::identity and spherical. A diagonal covariance has none: its
// distances are computed from differences, in float or double. The target's logit and the likelihood never come from a product.
// A logit within 20 of its sample's largest is computed again from differences where its product may be off by more than 1e-4,
// or by 256 u if that is more. u is the unit roundoff of what is multiplied. A precision that does not go with the features'
// type is status::not_supported.
enum class precision {
  // Products of float or double for features of float or double. 16-bit features enter as they are (half: as two bfloat16,
  // exactly), and means, centred in float, as the sum of two bfloat16 (u = 2^-16); sums are float's.
  highest,
  // float features: tensor cores at float's accuracy. Every operand is the sum of two TF32 numbers, in three products.
  split_tf32,
  // float features: operands are rounded to TF32 once (u = 2^-11).
  tf32,
  // 16-bit features: means are rounded to bfloat16 once (u = 2^-8).
  fast,
};

// The sizes of one call.
struct shape {
  std::int64_t samples = 0, classes = 0, dims = 0;
  lgm::covariance covariance = lgm::covariance::diagonal;
  // Elements between the rows of features, of the feature gradient and of logits; 0: packed.
  std::int64_t feature_stride = 0, gradient_stride = 0, logits_stride = 0;
  // The classes of this call are [class_begin, class_begin + classes) of total_classes (0: classes): one
  // shard of a larger mixture. Labels and total_classes count the whole mixture. A call is a shard's where total_classes is
  // not 0, and keeps row states that merge with those of others, even if it has all classes.
  std::int64_t class_begin = 0, total_classes = 0;
};

// Elements of an array of log variances.
LGM_HD constexpr std::int64_t log_variance_size(const shape& s) {
  return s.covariance == covariance::diagonal    ? s.classes * s.dims
         : s.covariance == covariance::spherical ? s.classes
                                                 : 0;
}

// The parameters of the mixture, as they are read.
template <class T>
struct mixture {
  const T* mean = nullptr;  // [classes, dims]
  const T* log_variance =
      nullptr;  // identity: not read; spherical: [classes]; diagonal: [classes, dims]; null: 0
  const T* log_prior = nullptr;  // [classes], any bias per class; null: -log(total_classes)
  // [1], log |det W| where features and means have been whitened (see whitening): score adds it to its log densities, which
  // then are those of what was whitened. Nothing else reads it; null: 0
  const T* log_abs_det = nullptr;
  // [dims], a point that is subtracted from features and means before they are multiplied; any point near the means will do.
  // null: the mean of the call's means; on a shard with covariance::identity zero. The row states of such shards are relative
  // to this point, so that all shards need the same one. Where features lie far from zero, give it.
  const T* origin = nullptr;
};

// Arrays of the mixture's shapes that are written: the parameters of an update, or its momentum.
template <class T>
struct parameters {
  T* mean = nullptr;
  T* log_variance = nullptr;
  T* log_prior = nullptr;

  operator lgm::mixture<T>() const { return {mean, log_variance, log_prior}; }
};

// The options of the loss. Class and sample weights multiply both of a sample's terms. With label smoothing the
// classification term is of targets that give (1 - label_smoothing) to the label (or to the soft targets) and share the
// rest evenly among all classes; margin and likelihood keep to the label. Weights, smoothing and the mean are those of
// torch.nn.CrossEntropyLoss.
template <class T>
struct loss_options {
  T alpha = 0;   // margin, >= 0
  T lambda = 0;  // weight of the likelihood term, >= 0
  const T* alpha_at =
      nullptr;  // [1], overrides alpha when not null, so that a captured graph follows a schedule
  // mean divides by the samples that count, each by its sample weight times its label's class weight; with soft
  // targets, by its sample weight. Where these add up to 0, the mean is NaN.
  lgm::reduction reduction = lgm::reduction::mean;
  std::int64_t ignore_label = -100;  // samples with this label do not count
  const T* class_weight = nullptr;   // [total_classes]; values are not checked
  const T* sample_weight = nullptr;  // [samples]; values are not checked
  T label_smoothing = 0;             // of the classification term, in [0, 1]
  const T* normalizer = nullptr;     // [1], what mean divides by instead (data parallel, micro-batches)
  // In [0, 1). Classes other than the label's whose probability is smaller are left out of the gradients, not of the
  // losses. A model that tells its classes apart has few others, and their products then take a fraction of the time.
  // The error of a sample's feature gradient is less than gradient_filter times the sum of |x - mu_k| / Lambda_k over the
  // classes. Used with labels and without label smoothing, which needs all classes.
  T gradient_filter = 0;
};

// Where a loss goes. Every pointer may be null. [1], or [samples] with reduction::none, unless said.
template <class T>
struct loss_result {
  T* total = nullptr;           // eq:loss
  T* classification = nullptr;  // eq:classification
  T* likelihood = nullptr;      // eq:likelihood, not multiplied by lambda
  // [samples, 2]: what backward needs, in a call with the same context. Both are -infinity for an ignored sample. With
  // shape.total_classes = 0: the largest l_k, and log sum exp l_k relative to it, over k != z (soft targets: over all k). On a
  // shard, with labels: the target's logit l_z (-infinity where its class is on another shard), and log sum exp l_k over k !=
  // z. On a shard, with soft targets: the sum of the classes' coefficients in eq:classification, before the sample's weight and
  // of any sign, and log sum exp l_k over all k. A sum over no class is -infinity. Logits here leave out the part of |x|^2 / 2
  // that all classes share, where it would take the digits of what tells the classes apart: on a shard with
  // covariance::identity always |x - origin|^2 / 2 (mixture::origin), so that shards merge; in a whole mixture where the sample
  // is far from all classes.
  T* row_state = nullptr;
  T* log_evidence = nullptr;        // [samples]: log sum_k exp l_k, the margin included; ignored samples: 0
  std::int64_t* counted = nullptr;  // [1]: samples that are not ignored
  std::int64_t* correct = nullptr;  // [1]: counted samples whose largest l_k without margin is the target's;
};                                  // on ties the lowest class is the largest; soft: the largest target's

// Where gradients go. Every pointer may be null. G is the type of the feature gradient.
template <class G, class T>
struct gradients {
  G* feature =
      nullptr;        // [samples, dims], row stride shape.gradient_stride; rows of ignored samples are zero
  T* mean = nullptr;  // [classes, dims]
  T* log_variance = nullptr;  // of the mixture's shape; not written with covariance::identity
  T* log_prior = nullptr;     // [classes]
  bool accumulate = false;    // add to mean, log_variance and log_prior instead of overwriting them
};

// Where scores go. Every array is [samples] and may be null. All are without margin. On a shard of the classes they are
// among its own; log_mixture then takes the priors as they are, so that the shards' exp(log_mixture) add up.
template <class T>
struct score_result {
  // arg max_k l_k, of the whole mixture, the lowest class on ties; -1 without classes. Where squares of finite features
  // overflow, densities are -infinity, distances infinity, and this is the nearest class.
  std::int64_t* predicted = nullptr;
  T* posterior = nullptr;                    // p(predicted | x)
  T* log_density = nullptr;                  // eq:log_density of the predicted class
  T* log_mixture = nullptr;                  // eq:log_mixture, the priors normalised
  T* squared_mahalanobis = nullptr;          // 2 d_k of the predicted class
  T* nearest_squared_mahalanobis = nullptr;  // 2 min_k d_k
  T* entropy = nullptr;  // eq:entropy of the posterior, in nats: 0 where one class is certain
};

// f(name, array) for every array of a score_result, in their order. Code that walks over all scores needs no change for a new
// one.
template <class Result, class F>
constexpr void for_each_score(Result& scores, F f) {
  f("predicted", scores.predicted);
  f("posterior", scores.posterior);
  f("log_density", scores.log_density);
  f("log_mixture", scores.log_mixture);
  f("squared_mahalanobis", scores.squared_mahalanobis);
  f("nearest_squared_mahalanobis", scores.nearest_squared_mahalanobis);
  f("entropy", scores.entropy);
}
constexpr int count_scores() {
  score_result<float> scores;
  int count = 0;
  for_each_score(scores, [&](const char*, auto*&) { ++count; });
  return count;
}

// The options of sgd_step. A rate of zero leaves its array as it is.
template <class T>
struct sgd_options {
  T mean_rate = 0, log_variance_rate = 0, log_prior_rate = 0;  // >= 0
  T momentum = 0;                                              // in [0, 1)
  bool nesterov = false;
  T weight_decay = 0;                               // >= 0, of the means; pulls them to zero
  T min_log_variance = -20, max_log_variance = 20;  // log_variance is clamped to these after a step
  // [1] each, in the context's memory; override the field, or act, when not null.
  const T* mean_rate_at = nullptr;
  const T* log_variance_rate_at = nullptr;
  const T* log_prior_rate_at = nullptr;
  const T* inverse_loss_scale_at = nullptr;  // multiplies the gradients first
  const bool* skip_at = nullptr;             // true: the step does nothing
};

// Targets in place of labels: row i gives class k the target q_k, for the classes of the call (mixup, distillation). The
// margin and the likelihood weigh each class by its target: l_k has (1 + alpha q_k) d_k, eq:likelihood is
// sum_k class_weight_k q_k (d_k + h_k). No sample is ignored: loss_options::ignore_label is not read, whether it is a class
// or not. Values are not checked.
template <class T>
struct soft_targets {
  const T* data = nullptr;  // [samples, classes]
  std::int64_t stride = 0;  // elements between rows; 0: packed
};

// Moments of the features of each class, accumulated over batches. A is a type of its own, float or double. Only count
// must not be null; what is null is not computed. m2 and scatter need mean.
template <class A>
struct class_moments {
  A* count = nullptr;  // [classes], samples seen (their weights, where they have any)
  A* mean = nullptr;   // [classes, dims]
  A* m2 = nullptr;     // [classes, dims], sum of squared differences from the mean
  // [dims, dims], sum of products of differences, of all classes together, each about its own mean; symmetric, its
  // lower triangle is written but not read
  A* scatter = nullptr;
  // [classes, dims], what rounding left out of mean, so that means far from zero cost m2 no digits
  A* mean_residual = nullptr;
};

// How estimate turns moments into parameters.
template <class T>
struct estimate_options {
  T variance_floor = 0;  // >= 0; variances are at least this
  T shrinkage = 0;       // in [0, 1]: towards the variance of all classes together
  T decay = 0;           // in [0, 1]: what is kept of the present parameters, for a running average
};

// A full covariance Sigma that all classes share, as the map that makes it the identity: y = W (x - c), eq:whitening, with
// W^T W the inverse of Sigma (W is the inverse of its Cholesky factor). Mahalanobis distances become Euclidean ones, so that
// features and means that both went through it make a mixture with covariance::identity. Written by estimate_whitening, read
// by whiten.
template <class T>
struct whitening {
  T* matrix = nullptr;  // [dims, dims], W: lower triangular, zeros above the diagonal
  T* offset = nullptr;  // [dims], c, the mean of all samples: keeps y small; null: 0
  T* log_abs_det =
      nullptr;  // [1], log |det W| = -1/2 log |Sigma|, for mixture::log_abs_det; null: not written
};

// How estimate_whitening turns moments into a covariance: (1 - shrinkage) S + (shrinkage tr(S) / dims + variance_floor) I,
// where S is the pooled scatter over the number of samples. With fewer samples than dims, or features that depend on one
// another, S is singular: one of the two then has to be above 0.
template <class T>
struct whitening_options {
  T variance_floor = 0;  // >= 0; no direction's variance is less
  T shrinkage = 0;       // in [0, 1]: towards the same variance in every direction
};

// Scratch memory of a call; any contents, any alignment, in the context's memory.
struct workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

}  // namespace lgm
