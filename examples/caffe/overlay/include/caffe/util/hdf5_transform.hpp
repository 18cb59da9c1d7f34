// SPDX-License-Identifier: MIT
#ifndef CAFFE_UTIL_HDF5_TRANSFORM_HPP_
#define CAFFE_UTIL_HDF5_TRANSFORM_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

// What HDF5Data does to the items of its first top: crop, subtract the mean, mirror, scale, as HDF5DataParameter says. Every item
// draws its crop and its mirroring each time it is read.
template <typename Dtype>
class HDF5Transform {
 public:
  // shape: of the first top as the file has it, with the batch in front; becomes that of the top.
  void SetUp(const HDF5DataParameter& param, Phase phase, vector<int>* shape);
  // Whether there is anything to do.
  bool active() const { return active_; }
  // Writes row `row` of the file's blob as item `item` of the batch: one row of the top, or one a crop.
  void Apply(const Blob<Dtype>& file, int row, int item, Blob<Dtype>* top);

 private:
  int Random(int n);  // in [0, n)

  HDF5DataParameter param_;
  bool train_ = false, active_ = false;
  shared_ptr<Caffe::RNG> rng_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_HDF5_TRANSFORM_HPP_
