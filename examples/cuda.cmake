# SPDX-License-Identifier: MIT

# The examples for a CUDA device; the root's CMakeLists.txt includes this where LGM_CUDA is on. Without a device each says so
# and exits with 2, which tests/CMakeLists.txt tests.
add_executable(lgm_custom_kernel ${CMAKE_CURRENT_LIST_DIR}/custom_kernel.cu)
set_target_properties(lgm_custom_kernel PROPERTIES OUTPUT_NAME custom_kernel)
target_link_libraries(lgm_custom_kernel PRIVATE lgm::cuda)
set(LGM_CUDA_EXAMPLES custom_kernel)

find_package(ZLIB QUIET)
find_package(CLI11 QUIET)
if(ZLIB_FOUND AND CLI11_FOUND)
  add_executable(lgm_cuda_trainer ${CMAKE_CURRENT_LIST_DIR}/cuda_trainer/main.cpp
                                  ${CMAKE_CURRENT_LIST_DIR}/cuda_trainer/training.cu)
  set_target_properties(lgm_cuda_trainer PROPERTIES OUTPUT_NAME cuda_trainer)
  target_link_libraries(lgm_cuda_trainer PRIVATE lgm::cuda ZLIB::ZLIB CLI11::CLI11)
  target_compile_options(lgm_cuda_trainer PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda>)
  if(LGM_BUILD_TESTS)
    # With the kernels that the tests have: a minute less for each architecture. A trainer of your own needs none of this.
    include(${PROJECT_SOURCE_DIR}/tests/support/compiled_cuda.cmake)
    target_link_libraries(lgm_cuda_trainer PRIVATE lgm_compiled_cuda)
    target_compile_options(lgm_cuda_trainer PRIVATE
                           $<$<COMPILE_LANGUAGE:CUDA>:-include=${PROJECT_SOURCE_DIR}/tests/support/compiled_cuda.hpp>)
  endif()
  list(APPEND LGM_CUDA_EXAMPLES cuda_trainer)
else()
  message(STATUS "zlib or CLI11 was not found: cuda_trainer is left out")
endif()
