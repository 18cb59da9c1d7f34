// SPDX-License-Identifier: MIT
#include <lgm/lgm.cuh>
#include <vector>

#include "caffe/layers/class_distance_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "class_distance_impl.hpp"

namespace caffe {
namespace {

template <typename F>
__global__ void for_each_kernel(int n, F f) {
  CUDA_KERNEL_LOOP(i, n) { f(i); }
}

template <typename T>
struct write_label {
  const T* labels;
  int* out;
  __device__ void operator()(int i) const { out[i] = static_cast<int>(labels[i]); }
};

// See class_distance_impl.hpp. Everything runs on Caffe's stream, the default one.
struct Cuda {
  lgm::cuda_context context() const {
    lgm::cuda_context context;
    context.handle = Caffe::cublas_handle();
    return context;
  }
  template <typename T>
  static const T* data(const Blob<T>& blob) {
    return blob.gpu_data();
  }
  template <typename T>
  static T* mutable_data(Blob<T>* blob) {
    return blob->mutable_gpu_data();
  }
  template <typename T>
  static const T* diff(const Blob<T>& blob) {
    return blob.gpu_diff();
  }
  template <typename T>
  static T* mutable_diff(Blob<T>* blob) {
    return blob->mutable_gpu_diff();
  }
  static void* memory(SyncedMemory* memory) { return memory->mutable_gpu_data(); }

  // A label outside [0, classes) is seen on the device: lgm makes that sample's losses not a number, and there is no margin.
  template <typename T>
  static void read_labels(const Blob<T>& blob, int, Blob<int>* out) {
    for_each(out->count(), write_label<T>{blob.gpu_data(), out->mutable_gpu_data()});
  }
  template <typename F>
  static void for_each(int n, F f) {
    if (n == 0) return;
    for_each_kernel<<<CAFFE_GET_BLOCKS(n), CAFFE_CUDA_NUM_THREADS>>>(n, f);
    CUDA_POST_KERNEL_CHECK;
  }
  template <typename T>
  static void gemm(CBLAS_TRANSPOSE a_form, CBLAS_TRANSPOSE b_form, int m, int n, int k, T alpha, const T* a,
                   const T* b, T beta, T* c) {
    caffe_gpu_gemm<T>(a_form, b_form, m, n, k, alpha, a, b, beta, c);
  }
  template <typename T>
  static void set(int n, T value, T* out) {
    caffe_gpu_set(n, value, out);
  }
  template <typename T>
  static void copy(int n, const T* from, T* to) {
    caffe_copy(n, from, to);
  }
  template <typename T>
  static void scale(int n, T factor, T* values) {
    caffe_gpu_scal(n, factor, values);
  }
  template <typename T>
  static void axpy(int n, T factor, const T* from, T* to) {
    caffe_gpu_axpy(n, factor, from, to);
  }
};

}  // namespace

template <typename Dtype>
void ClassDistanceLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                            const vector<Blob<Dtype>*>& top) {
  Compute(Cuda(), bottom, top);
}

template <typename Dtype>
void ClassDistanceLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                             const vector<bool>& propagate_down,
                                             const vector<Blob<Dtype>*>& bottom) {
  Differentiate(Cuda(), top, propagate_down, bottom);
}

INSTANTIATE_LAYER_GPU_FUNCS(ClassDistanceLayer);

}  // namespace caffe
