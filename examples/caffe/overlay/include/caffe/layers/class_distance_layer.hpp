// SPDX-License-Identifier: MIT
#ifndef CAFFE_CLASS_DISTANCE_LAYER_HPP_
#define CAFFE_CLASS_DISTANCE_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace lgm {
struct shape;
struct workspace;
template <class G, class T>
struct gradients;
}  // namespace lgm

namespace caffe {

// The logits of a large-margin Gaussian mixture, for SoftmaxWithLoss, by lgm. The parameters are described in caffe.proto
// (ClassDistanceParameter).
//
// Bottoms: features [N, ...], and labels [N] in TRAIN (and, with formula PAPER, wherever there is a second top).
// Tops: logits [N, num_output], in TRAIN with the margin at the label; with formula PAPER and labels also
//   center_coef times the likelihood loss, [1] (a loss of weight 1 unless loss_weight says otherwise).
// Blobs: means [num_output, dims]; variances [num_output] (isotropic) or [num_output, dims].
template <typename Dtype>
class ClassDistanceLayer : public Layer<Dtype> {
 public:
  explicit ClassDistanceLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "ClassDistance"; }
  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MaxBottomBlobs() const { return 2; }
  virtual inline bool AllowForceBackward(const int bottom) const { return bottom == 0; }
  // A net makes the second top by itself where it is needed and not named.
  virtual inline bool AutoTopBlobs() const { return true; }
  virtual inline int MinTopBlobs() const {
    const bool likelihood = param().center_coef() != 0 && this->layer_param_.bottom_size() == 2;
    return is_paper() && likelihood ? 2 : 1;
  }
  virtual inline int MaxTopBlobs() const { return is_paper() ? 2 : 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

 private:
  const ClassDistanceParameter& param() const { return this->layer_param_.class_distance_param(); }
  bool is_paper() const { return param().formula() == ClassDistanceParameter_Formula_PAPER; }
  bool is_product() const { return param().metric() == ClassDistanceParameter_Metric_IP; }

  // The margin of the training iteration that begins.
  void NextMargin();

  // Both passes, for either device (class_distance_impl.hpp).
  template <typename Device>
  void Compute(const Device& device, const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  template <typename Device>
  void Differentiate(const Device& device, const vector<Blob<Dtype>*>& top,
                     const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  template <typename Device>
  void DifferentiateAuthors(const Device& device, const Blob<Dtype>& features, const Dtype* slope,
                            bool has_labels, Dtype* feature_diff, Dtype* mean_diff, bool variance_diff);
  template <typename Device>
  void AddLikelihoodGradient(const Device& device, const Blob<Dtype>& features, Dtype weight,
                             Dtype* feature_diff, Dtype* mean_diff);
  template <typename Device>
  void BeginVarianceGradient(const Device& device, lgm::gradients<Dtype, Dtype>* gradient);
  template <typename Device>
  void AddVarianceGradient(const Device& device, Dtype log_det_share, Dtype floor, Dtype offset, bool is_raw);
  template <typename Device>
  const Dtype* LogVariance(const Device& device, Dtype floor, Dtype offset);
  template <typename Device>
  lgm::workspace Workspace(const Device& device);
  lgm::shape Shape() const;
  Dtype Epsilon() const { return Dtype(param().isotropic() ? 1e-4 : 1e-8); }

  int samples_, classes_, dims_;
  float margin_;
  int iteration_;  // training iterations begun

  Blob<int> labels_;
  Blob<Dtype> log_variance_, log_det_;
  Blob<Dtype> slope_;  // the gradient of the logits, times the margin
  Blob<Dtype> feature_part_, mean_part_, log_variance_part_, log_prior_part_;
  shared_ptr<SyncedMemory> workspace_;
};

}  // namespace caffe

#endif  // CAFFE_CLASS_DISTANCE_LAYER_HPP_
