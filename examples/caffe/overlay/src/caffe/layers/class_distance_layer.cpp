// SPDX-License-Identifier: MIT
#include <lgm/cblas.hpp>
#include <lgm/lgm.hpp>
#include <lgm/schedule.hpp>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/class_distance_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "class_distance_impl.hpp"

namespace caffe {
namespace {

// See class_distance_impl.hpp.
struct Host {
  lgm::host_context context() const {
    lgm::host_context context;
    context.gemm = lgm::cblas_gemm<cblas_sgemm, cblas_dgemm>();
    return context;
  }
  template <typename T>
  static const T* data(const Blob<T>& blob) {
    return blob.cpu_data();
  }
  template <typename T>
  static T* mutable_data(Blob<T>* blob) {
    return blob->mutable_cpu_data();
  }
  template <typename T>
  static const T* diff(const Blob<T>& blob) {
    return blob.cpu_diff();
  }
  template <typename T>
  static T* mutable_diff(Blob<T>* blob) {
    return blob->mutable_cpu_diff();
  }
  static void* memory(SyncedMemory* memory) { return memory->mutable_cpu_data(); }

  template <typename T>
  static void read_labels(const Blob<T>& blob, int classes, Blob<int>* out) {
    const T* labels = blob.cpu_data();
    int* integers = out->mutable_cpu_data();
    for (int i = 0; i < out->count(); ++i) {
      integers[i] = static_cast<int>(labels[i]);
      CHECK(integers[i] >= 0 && integers[i] < classes)
          << "ClassDistance: the label of sample " << i << " is " << labels[i] << ", num_output " << classes;
    }
  }
  template <typename F>
  static void for_each(int n, F f) {
    for (int i = 0; i < n; ++i) f(i);
  }
  template <typename T>
  static void gemm(CBLAS_TRANSPOSE a_form, CBLAS_TRANSPOSE b_form, int m, int n, int k, T alpha, const T* a,
                   const T* b, T beta, T* c) {
    caffe_cpu_gemm<T>(a_form, b_form, m, n, k, alpha, a, b, beta, c);
  }
  template <typename T>
  static void set(int n, T value, T* out) {
    caffe_set(n, value, out);
  }
  template <typename T>
  static void copy(int n, const T* from, T* to) {
    caffe_copy(n, from, to);
  }
  template <typename T>
  static void scale(int n, T factor, T* values) {
    caffe_scal(n, factor, values);
  }
  template <typename T>
  static void axpy(int n, T factor, const T* from, T* to) {
    caffe_axpy(n, factor, from, to);
  }
};

lgm::schedule_policy policy_of(const ParamParameter& schedule) {
  switch (schedule.policy()) {
    case ParamParameter_Policy_STEPUP: return lgm::schedule_policy::step_up;
    case ParamParameter_Policy_ADDUP: return lgm::schedule_policy::add_up;
    default: return lgm::schedule_policy::constant;
  }
}

float scheduled(const ParamParameter& schedule, float value, int step, int iteration) {
  lgm::stepped_schedule<float> f;
  f.policy = policy_of(schedule);
  f.value = value;
  f.step = step;
  f.gamma = schedule.gamma();
  f.min = schedule.min();
  f.max = schedule.max();
  return f(iteration);
}

}  // namespace

template <typename Dtype>
void ClassDistanceLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                           const vector<Blob<Dtype>*>& top) {
  const ClassDistanceParameter& p = param();
  CHECK_NE(p.metric(), ClassDistanceParameter_Metric_L1) << "ClassDistance does not support metric: L1";
  CHECK_EQ(p.dropout_ratio(), 0) << "ClassDistance does not support dropout_ratio";
  CHECK(!p.ignore_zero()) << "ClassDistance does not support ignore_zero";
  CHECK(!p.block_mul_grad()) << "ClassDistance does not support block_mul_grad";
  CHECK_GT(p.num_output(), 0) << "ClassDistance needs num_output";
  CHECK_GT(p.margin_mul().step(), 0) << "ClassDistance: margin_mul.step must be positive";
  CHECK_GE(p.margin_mul().iter(), 0) << "ClassDistance: margin_mul.iter must not be negative";
  CHECK(bottom.size() == 2 || top.size() == 1) << "ClassDistance: a second top needs labels";

  classes_ = p.num_output();
  dims_ = bottom[0]->count(1);
  const vector<int> mean_shape = {classes_, dims_};
  const vector<int> variance_shape = p.isotropic() ? vector<int>{classes_} : mean_shape;
  if (this->blobs_.size() > 0) {
    LOG(INFO) << "Skipping parameter initialization";
    CHECK_EQ(this->blobs_.size(), 2);
  } else {
    this->blobs_.resize(2);
    this->blobs_[0].reset(new Blob<Dtype>(mean_shape));
    this->blobs_[1].reset(new Blob<Dtype>(variance_shape));
    shared_ptr<Filler<Dtype> > mean_filler(GetFiller<Dtype>(p.weight_filler()));
    mean_filler->Fill(this->blobs_[0].get());
    shared_ptr<Filler<Dtype> > variance_filler(GetFiller<Dtype>(p.bias_filler()));
    variance_filler->Fill(this->blobs_[1].get());
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);

  // A likelihood that is reported is a loss, as with Caffe's loss layers.
  if (top.size() == 2 && this->layer_param_.loss_weight_size() == 0) {
    this->layer_param_.add_loss_weight(0);
    this->layer_param_.add_loss_weight(1);
  }

  iteration_ = p.margin_mul().iter();
  margin_ = p.margin_mul().value();
  if (iteration_ > 0 && p.margin_mul().policy() != ParamParameter_Policy_CONSTANT)
    margin_ = scheduled(p.margin_mul(), margin_, p.margin_mul().step(), iteration_);
}

template <typename Dtype>
void ClassDistanceLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(bottom[0]->count(1), dims_) << "ClassDistance: the features' size does not match the means";
  samples_ = bottom[0]->shape(0);
  if (bottom.size() == 2) CHECK_EQ(bottom[1]->count(), samples_) << "ClassDistance: one label a sample";

  const vector<int> logits_shape = {samples_, classes_};
  top[0]->Reshape(logits_shape);
  if (top.size() == 2) top[1]->Reshape(vector<int>());

  labels_.Reshape({samples_});
  slope_.Reshape(logits_shape);
  log_variance_.ReshapeLike(*this->blobs_[1]);
  log_variance_part_.ReshapeLike(*this->blobs_[1]);
  log_det_.Reshape({classes_});
  log_prior_part_.Reshape({classes_});
  feature_part_.Reshape({samples_, dims_});
  mean_part_.ReshapeLike(*this->blobs_[0]);
}

template <typename Dtype>
void ClassDistanceLayer<Dtype>::NextMargin() {
  const ParamParameter& schedule = param().margin_mul();
  if (is_paper()) {
    margin_ = scheduled(schedule, schedule.value(), schedule.step(), iteration_);
  } else if (iteration_ > 0 && iteration_ % schedule.step() == 0 &&
             schedule.policy() != ParamParameter_Policy_CONSTANT) {
    // The authors' schedule goes on from its value, which is clamped at each step, and only there.
    margin_ = scheduled(schedule, margin_, 1, 1);
  }
  ++iteration_;
}

template <typename Dtype>
void ClassDistanceLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                            const vector<Blob<Dtype>*>& top) {
  Compute(Host(), bottom, top);
}

template <typename Dtype>
void ClassDistanceLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                             const vector<bool>& propagate_down,
                                             const vector<Blob<Dtype>*>& bottom) {
  Differentiate(Host(), top, propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(ClassDistanceLayer);
#endif

INSTANTIATE_CLASS(ClassDistanceLayer);
REGISTER_LAYER_CLASS(ClassDistance);

}  // namespace caffe
