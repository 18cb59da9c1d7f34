# SPDX-License-Identifier: MIT

# lgm_compiled_cuda: the CUDA driver's kernels, compiled once for all programs of tests and benchmarks, with the compiler's
# report on them in LGM_CUDA_REPORTS.
if(TARGET lgm_compiled_cuda)
  return()
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(LGM_CUDA_RESOURCES ${PROJECT_SOURCE_DIR}/tests/cuda_resources.py)
set(LGM_CUDA_REPORTS ${PROJECT_BINARY_DIR}/cuda_resources)
set(compiled_cuda_sources)
foreach(name IN ITEMS compiled_cuda compiled_cuda_float_losses compiled_cuda_float_others compiled_cuda_double_losses
                      compiled_cuda_double_others)
  list(APPEND compiled_cuda_sources ${CMAKE_CURRENT_LIST_DIR}/${name}.cu)
endforeach()
add_library(lgm_compiled_cuda OBJECT ${compiled_cuda_sources})
target_link_libraries(lgm_compiled_cuda PUBLIC lgm::cuda)
target_include_directories(lgm_compiled_cuda PUBLIC ${PROJECT_SOURCE_DIR}/tests)
target_compile_options(lgm_compiled_cuda PRIVATE -Xptxas=-v)
set_target_properties(lgm_compiled_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_COMPILER_LAUNCHER
  "${Python3_EXECUTABLE};${LGM_CUDA_RESOURCES};record;${LGM_CUDA_REPORTS};${CMAKE_CUDA_COMPILER_LAUNCHER}")
