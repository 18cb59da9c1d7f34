// SPDX-License-Identifier: MIT
#ifndef CAFFE_CLASS_DISTANCE_IMPL_HPP_
#define CAFFE_CLASS_DISTANCE_IMPL_HPP_

// Both passes of the layer, written once for the processor (class_distance_layer.cpp) and for CUDA
// (class_distance_layer.cu), which each bring lgm's driver and a Device:
//
//   context()                       lgm's context
//   data(blob), diff(blob)          pointers in the device's memory; mutable_data, mutable_diff likewise
//   memory(synced)                  the same of a SyncedMemory
//   read_labels(blob, classes, out) labels as integers
//   for_each(n, f)                  f(i) for every i of [0, n)
//   gemm, set, copy, scale, axpy    Caffe's

#include <algorithm>
#include <lgm/config.hpp>
#include <lgm/distance.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <vector>

#include "caffe/layers/class_distance_layer.hpp"
#include "caffe/util/mkl_alternate.hpp"

namespace caffe {
namespace class_distance {

inline void check(lgm::status status) {
  CHECK(status == lgm::status::success) << "ClassDistance: " << lgm::to_string(status);
}

// The variance that stands for what the blob holds.
template <typename Dtype>
LGM_HD Dtype variance(Dtype value, Dtype floor, Dtype offset) {
  return (value > floor ? value : floor) + offset;
}

template <typename Dtype>
struct write_log_variance {
  const Dtype* values;
  Dtype floor, offset;
  Dtype* out;
  LGM_HD void operator()(int i) const { out[i] = std::log(variance(values[i], floor, offset)); }
};

// h_k of every class. As log_prior it takes the determinant out of the logits.
template <typename Dtype>
struct write_log_det {
  lgm::shape shape;
  lgm::mixture<Dtype> mixture;
  Dtype* out;
  LGM_HD void operator()(int k) const {
    const lgm::class_parameters<Dtype> of_class(shape, mixture, k);
    out[k] = lgm::half_log_det(lgm::serial_group(), shape.dims, of_class);
  }
};

// Multiplies each row's number at the label.
template <typename Dtype>
struct scale_targets {
  const int* labels;
  int classes;
  Dtype factor;
  Dtype* matrix;
  LGM_HD void operator()(int i) const {
    if (labels[i] >= 0 && labels[i] < classes) matrix[i * classes + labels[i]] *= factor;
  }
};

// The gradient of the blob's variances from that of their logarithms, and from that of a log_prior that is h_k times 2
// log_det_share / dims.
template <typename Dtype>
struct add_variance_gradient {
  const Dtype *values, *log_variance, *log_prior;
  int per_class;  // variances of a class
  Dtype log_det_share, floor, offset;
  bool is_raw;  // d log v / d v is 1 over what the blob holds, whatever stands for it
  Dtype* out;
  LGM_HD void operator()(int i) const {
    const Dtype by = is_raw ? values[i] : variance(values[i], floor, offset);
    out[i] += (log_variance[i] + log_det_share * log_prior[i / per_class]) / by;
  }
};

}  // namespace class_distance

template <typename Dtype>
lgm::shape ClassDistanceLayer<Dtype>::Shape() const {
  lgm::shape shape;
  shape.samples = samples_;
  shape.classes = classes_;
  shape.dims = dims_;
  shape.covariance = param().isotropic() ? lgm::covariance::spherical : lgm::covariance::diagonal;
  return shape;
}

template <typename Dtype>
template <typename Device>
lgm::workspace ClassDistanceLayer<Dtype>::Workspace(const Device& device) {
  lgm::shape identity = Shape();
  identity.covariance = lgm::covariance::identity;
  const size_t bytes = std::max({lgm::workspace_size<Dtype>(device.context(), Shape()),
                                 lgm::workspace_size<Dtype>(device.context(), identity), size_t(1)});
  if (!workspace_ || workspace_->size() < bytes) workspace_.reset(new SyncedMemory(bytes));
  return {device.memory(workspace_.get()), workspace_->size()};
}

// The logarithms of the variances, in the device's memory.
template <typename Dtype>
template <typename Device>
const Dtype* ClassDistanceLayer<Dtype>::LogVariance(const Device& device, Dtype floor, Dtype offset) {
  const Blob<Dtype>& values = *this->blobs_[1];
  Dtype* out = device.mutable_data(&log_variance_);
  device.for_each(values.count(),
                  class_distance::write_log_variance<Dtype>{device.data(values), floor, offset, out});
  return out;
}

template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::Compute(const Device& device, const vector<Blob<Dtype>*>& bottom,
                                        const vector<Blob<Dtype>*>& top) {
  using class_distance::check;
  const bool train = this->phase_ == TRAIN && bottom.size() == 2;
  if (train) NextMargin();
  if (train || top.size() == 2) device.read_labels(*bottom[1], classes_, &labels_);

  const Dtype* x = device.data(*bottom[0]);
  const Dtype* mean = device.data(*this->blobs_[0]);
  Dtype* logits = device.mutable_data(top[0]);
  lgm::shape shape = Shape();
  lgm::mixture<Dtype> mixture;
  mixture.mean = mean;
  const lgm::workspace workspace = Workspace(device);

  if (is_product()) {
    shape.covariance = lgm::covariance::identity;
    device.gemm(CblasNoTrans, CblasTrans, samples_, classes_, dims_, Dtype(1), x, mean, Dtype(0), logits);
  } else if (is_paper()) {
    lgm::loss_options<Dtype> options;
    options.alpha = train ? margin_ : 0;
    mixture.log_variance = LogVariance(device, Epsilon(), Dtype(0));
    const int* labels = train ? device.data(labels_) : NULL;
    check(lgm::logits(device.context(), shape, mixture, options, x, labels, logits, workspace));
  } else {
    // The smallest diagonal variance is 1e-8 here, and 1e-8 is added to it in the gradients.
    mixture.log_variance = param().isotropic() ? LogVariance(device, Dtype(0), Epsilon())
                                               : LogVariance(device, Epsilon(), Dtype(0));
    Dtype* log_det = device.mutable_data(&log_det_);
    device.for_each(classes_, class_distance::write_log_det<Dtype>{shape, mixture, log_det});
    mixture.log_prior = log_det;
    const int* labels = NULL;
    check(lgm::logits(device.context(), shape, mixture, lgm::loss_options<Dtype>(), x, labels, logits,
                      workspace));
  }
  if (train && (is_product() || !is_paper()))
    device.for_each(samples_, class_distance::scale_targets<Dtype>{device.data(labels_), classes_,
                                                                   1 + Dtype(margin_), logits});

  if (top.size() == 2) {
    lgm::loss_result<Dtype> result;
    result.likelihood = device.mutable_data(top[1]);
    check(lgm::forward(device.context(), shape, mixture, lgm::loss_options<Dtype>(), x, device.data(labels_),
                       result, workspace));
    device.scale(1, Dtype(param().center_coef()), result.likelihood);
  }
}

// Where lgm puts the gradients that AddVarianceGradient reads; zero, because lgm adds to them.
template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::BeginVarianceGradient(const Device& device,
                                                      lgm::gradients<Dtype, Dtype>* gradient) {
  gradient->log_variance = device.mutable_data(&log_variance_part_);
  gradient->log_prior = device.mutable_data(&log_prior_part_);
  device.set(log_variance_part_.count(), Dtype(0), gradient->log_variance);
  device.set(log_prior_part_.count(), Dtype(0), gradient->log_prior);
}

// Adds the gradient of the variances, from those of their logarithms and of log_prior.
template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::AddVarianceGradient(const Device& device, Dtype log_det_share, Dtype floor,
                                                    Dtype offset, bool is_raw) {
  Blob<Dtype>* variances = this->blobs_[1].get();
  device.for_each(variances->count(),
                  class_distance::add_variance_gradient<Dtype>{
                      device.data(*variances), device.data(log_variance_part_), device.data(log_prior_part_),
                      variances->count() / classes_, log_det_share, floor, offset, is_raw,
                      device.mutable_diff(variances)});
}

// Adds weight / N times (x - mu_z) to the features' gradient, and takes it from the means': the likelihood's, with unit variances.
template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::AddLikelihoodGradient(const Device& device, const Blob<Dtype>& features,
                                                      Dtype weight, Dtype* feature_diff, Dtype* mean_diff) {
  lgm::shape shape = Shape();
  shape.covariance = lgm::covariance::identity;
  lgm::mixture<Dtype> mixture;
  mixture.mean = device.data(*this->blobs_[0]);
  lgm::loss_options<Dtype> options;
  options.lambda = 1;
  lgm::gradients<Dtype, Dtype> gradient;
  if (feature_diff != NULL) gradient.feature = device.mutable_data(&feature_part_);
  if (mean_diff != NULL) gradient.mean = device.mutable_data(&mean_part_);
  Dtype* none = device.mutable_data(&slope_);
  device.set(slope_.count(), Dtype(0), none);
  class_distance::check(lgm::logits_backward(device.context(), shape, mixture, options, device.data(features),
                                             device.data(labels_), static_cast<const Dtype*>(none), nullptr,
                                             gradient, Workspace(device)));
  if (feature_diff != NULL) device.axpy(feature_part_.count(), weight, gradient.feature, feature_diff);
  if (mean_diff != NULL) device.axpy(mean_part_.count(), weight, gradient.mean, mean_diff);
}

// The gradients of distances without determinant. The authors' layer divides by variances that differ in their epsilon, and by 1
// where there are no labels.
template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::DifferentiateAuthors(const Device& device, const Blob<Dtype>& features,
                                                     const Dtype* slope, bool has_labels, Dtype* feature_diff,
                                                     Dtype* mean_diff, bool variance_diff) {
  const bool isotropic = param().isotropic();
  const lgm::workspace workspace = Workspace(device);
  lgm::shape shape = Shape();
  if (!has_labels) shape.covariance = lgm::covariance::identity;
  lgm::mixture<Dtype> mixture;
  mixture.mean = device.data(*this->blobs_[0]);
  const lgm::loss_options<Dtype> options;
  const int* no_labels = NULL;
  const auto run = [&](Dtype epsilon, const lgm::gradients<Dtype, Dtype>& gradient) {
    mixture.log_variance = LogVariance(device, Dtype(0), epsilon);
    class_distance::check(lgm::logits_backward(device.context(), shape, mixture, options,
                                               device.data(features), no_labels, slope, nullptr, gradient,
                                               workspace));
  };

  lgm::gradients<Dtype, Dtype> of_features, of_parameters;
  of_features.feature = feature_diff;
  of_parameters.mean = mean_diff;
  of_parameters.accumulate = true;
  if (variance_diff && has_labels) BeginVarianceGradient(device, &of_parameters);
  const Dtype epsilon = Dtype(1e-4);
  if (isotropic) {
    of_parameters.feature = feature_diff;
    run(epsilon, of_parameters);
  } else {
    if (feature_diff != NULL) run(Dtype(1e-8), of_features);
    if (mean_diff != NULL || of_parameters.log_variance != NULL) run(epsilon, of_parameters);
  }
  if (of_parameters.log_variance != NULL)
    AddVarianceGradient(device, Dtype(isotropic ? dims_ : 1) / 2, Dtype(0), epsilon, isotropic);
}

template <typename Dtype>
template <typename Device>
void ClassDistanceLayer<Dtype>::Differentiate(const Device& device, const vector<Blob<Dtype>*>& top,
                                              const vector<bool>& propagate_down,
                                              const vector<Blob<Dtype>*>& bottom) {
  using class_distance::check;
  const bool has_labels = bottom.size() == 2;
  CHECK(!has_labels || !propagate_down[1]) << "ClassDistance: labels have no gradient";
  if (has_labels) device.read_labels(*bottom[1], classes_, &labels_);

  Dtype* feature_diff = propagate_down[0] ? device.mutable_diff(bottom[0]) : NULL;
  Dtype* mean_diff = this->param_propagate_down_[0] ? device.mutable_diff(this->blobs_[0].get()) : NULL;
  const bool variance_diff = param().update_sigma() && this->param_propagate_down_[1] && !is_product();
  // The authors' layer has the margin in its gradients in both phases.
  const bool has_margin = has_labels && (!is_paper() || this->phase_ == TRAIN);
  Dtype weight = 0;
  if (has_labels && !is_paper()) weight = param().center_coef();
  if (top.size() == 2) weight = param().center_coef() * top[1]->cpu_diff()[0];

  const Dtype* x = device.data(*bottom[0]);
  const Dtype* mean = device.data(*this->blobs_[0]);
  const Dtype* top_diff = device.diff(*top[0]);

  if (is_paper() && !is_product()) {
    lgm::mixture<Dtype> mixture;
    mixture.mean = mean;
    mixture.log_variance = LogVariance(device, Epsilon(), Dtype(0));
    lgm::loss_options<Dtype> options;
    options.alpha = has_margin ? margin_ : 0;
    options.lambda = weight;
    lgm::gradients<Dtype, Dtype> gradient;
    gradient.feature = feature_diff;
    gradient.mean = mean_diff;
    gradient.accumulate = true;
    if (variance_diff) BeginVarianceGradient(device, &gradient);
    const int* labels = has_labels ? device.data(labels_) : NULL;
    check(lgm::logits_backward(device.context(), Shape(), mixture, options, x, labels, top_diff, nullptr,
                               gradient, Workspace(device)));
    if (variance_diff) AddVarianceGradient(device, Dtype(0), Epsilon(), Dtype(0), false);
    return;
  }

  Dtype* slope = device.mutable_data(&slope_);
  device.copy(slope_.count(), top_diff, slope);
  if (has_margin)
    device.for_each(samples_, class_distance::scale_targets<Dtype>{device.data(labels_), classes_,
                                                                   1 + Dtype(margin_), slope});
  if (is_product()) {
    if (feature_diff != NULL)
      device.gemm(CblasNoTrans, CblasNoTrans, samples_, dims_, classes_, Dtype(1), slope, mean, Dtype(0),
                  feature_diff);
    if (mean_diff != NULL)
      device.gemm(CblasTrans, CblasNoTrans, classes_, dims_, samples_, Dtype(1), slope, x, Dtype(1),
                  mean_diff);
  } else {
    DifferentiateAuthors(device, *bottom[0], slope, has_labels, feature_diff, mean_diff, variance_diff);
  }
  if (weight != 0) AddLikelihoodGradient(device, *bottom[0], weight, feature_diff, mean_diff);
}

}  // namespace caffe

#endif  // CAFFE_CLASS_DISTANCE_IMPL_HPP_
