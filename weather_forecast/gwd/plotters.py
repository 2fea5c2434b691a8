def plot_all(folder, scorecard, profiles, samples):
    folder.mkdir(exist_ok=True)
