# SPDX-License-Identifier: MIT
# What the layer ClassDistance takes: C++17, Eigen on the host, cuBLASLt with CUDA. lgm itself lies in include/.
find_path(EIGEN3_INCLUDE_DIR Eigen/Core PATH_SUFFIXES eigen3)
if(NOT EIGEN3_INCLUDE_DIR)
  message(FATAL_ERROR "The layer ClassDistance needs Eigen 3.4 (libeigen3-dev); set EIGEN3_INCLUDE_DIR")
endif()
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/caffe/layers/class_distance_layer.cpp PROPERTIES
                            COMPILE_FLAGS "-std=c++17 -isystem ${EIGEN3_INCLUDE_DIR}")
if(HAVE_CUDA)
  list(APPEND CUDA_NVCC_FLAGS -std=c++17)
  find_cuda_helper_libs(cublasLt)
  list(APPEND Caffe_LINKER_LIBS PUBLIC ${CUDA_cublasLt_LIBRARY})
endif()
