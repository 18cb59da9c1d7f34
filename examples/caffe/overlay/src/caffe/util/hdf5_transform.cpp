// SPDX-License-Identifier: MIT
#include "caffe/util/hdf5_transform.hpp"

#include <vector>

#include "caffe/util/math_functions.hpp"
#include "caffe/util/rng.hpp"

namespace caffe {

template <typename Dtype>
void HDF5Transform<Dtype>::SetUp(const HDF5DataParameter& param, Phase phase, vector<int>* shape) {
  param_ = param;
  train_ = phase == TRAIN;
  const bool crops = param.crop_size() > 0, mirrors = param.mirror() && train_;
  active_ = crops || mirrors || param.mean_value_size() > 0 || param.scale() != 1;
  CHECK(param.crop_num() >= 1 && param.crop_num() <= 5) << "HDF5Data: crop_num must be 1 to 5";
  CHECK(param.crop_num() == 1 || crops) << "HDF5Data: crop_num needs crop_size";
  const int means = param.mean_value_size();
  if (crops || mirrors || means > 1)
    CHECK_EQ(shape->size(), 4) << "HDF5Data: crop_size, mirror and mean_value are for images [N, C, H, W]";
  CHECK(means <= 1 || means == (*shape)[1]) << "HDF5Data: one mean_value, or one a channel";
  if (crops) {
    if (!train_) (*shape)[0] *= param.crop_num();
    (*shape)[2] = (*shape)[3] = param.crop_size();
  }
  rng_.reset(train_ && (crops || mirrors) ? new Caffe::RNG(caffe_rng_rand()) : NULL);
}

template <typename Dtype>
int HDF5Transform<Dtype>::Random(int n) {
  return (*static_cast<rng_t*>(rng_->generator()))() % n;
}

template <typename Dtype>
void HDF5Transform<Dtype>::Apply(const Blob<Dtype>& file, int row, int item, Blob<Dtype>* top) {
  // What is no image has one channel and one row.
  const bool image = file.num_axes() == 4;
  const int channels = image ? file.shape(1) : 1, height = image ? file.shape(2) : 1;
  const int width = image ? file.shape(3) : file.count(1), crop = param_.crop_size();
  const int out_height = crop > 0 ? crop : height, out_width = crop > 0 ? crop : width;
  const int right = width - out_width, bottom = height - out_height;
  CHECK(right >= 0 && bottom >= 0) << "HDF5Data: crop_size " << crop << " in an image of " << height << " x "
                                   << width;
  CHECK_EQ(top->count(1), channels * out_height * out_width) << "HDF5Data: files with images of two sizes";

  // Of a test image: the centre, then the corners.
  const int tops[] = {bottom / 2, 0, bottom, 0, bottom}, lefts[] = {right / 2, 0, right, right, 0};
  const int crops = train_ || crop == 0 ? 1 : param_.crop_num();
  const Dtype* image_data = file.cpu_data() + static_cast<size_t>(row) * file.count(1);
  Dtype* out = top->mutable_cpu_data() + static_cast<size_t>(item) * crops * top->count(1);
  for (int n = 0; n < crops; ++n) {
    const bool random = train_ && crop > 0;
    const int y = random ? Random(bottom + 1) : tops[n], x = random ? Random(right + 1) : lefts[n];
    const bool mirrored = train_ && param_.mirror() && Random(2) == 1;
    for (int c = 0; c < channels; ++c) {
      const int means = param_.mean_value_size();
      const Dtype mean = means == 0 ? 0 : param_.mean_value(means == 1 ? 0 : c);
      for (int h = 0; h < out_height; ++h, out += out_width) {
        const Dtype* in = image_data + (c * height + y + h) * width + x;
        for (int w = 0; w < out_width; ++w)
          out[w] = (in[mirrored ? out_width - 1 - w : w] - mean) * param_.scale();
      }
    }
  }
}

INSTANTIATE_CLASS(HDF5Transform);

}  // namespace caffe
